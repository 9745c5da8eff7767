"""What every command shares: the one place where errors become a line and an exit code."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, ParamSpec

import click

from petseg.errors import PetsegError
from petseg.text import printable

OK, FAILED, PARTLY_FAILED = 0, 1, 3
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

P = ParamSpec("P")


class Terminated(BaseException):
    """SIGTERM, raised where the main thread is, so that everything is closed on the way out."""


def _raise_terminated(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def exits(command: Callable[P, int]) -> Callable[P, None]:
    """Turn a function that returns an exit code, or raises one of petseg's errors, into a command.

    An unexpected error keeps its traceback.
    """

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        signal.signal(signal.SIGTERM, _raise_terminated)
        try:
            code = command(*args, **kwargs)
        except PetsegError as error:
            click.echo(f"error: {printable(str(error))}", err=True)
            code = FAILED
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            code = INTERRUPTED
        except Terminated:
            click.echo("terminated", err=True)
            code = TERMINATED
        sys.exit(code)

    return wrapper
