"""The network on this machine: which provider, in which precision, and batches through it."""

from petseg.runtime.providers import PRECISIONS, PROVIDERS, Choice, choose, open_session
from petseg.runtime.session import NoSession, Session, Stream

__all__ = [
    "PRECISIONS",
    "PROVIDERS",
    "Choice",
    "NoSession",
    "Session",
    "Stream",
    "choose",
    "open_session",
]
