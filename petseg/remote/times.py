"""When a file in a store was last changed, out of what its listing says; each store's own way."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

# What S3, most file systems, Azure, HTTP, FTP and the memory file system call it, the best first.
_TIMES = ("LastModified", "mtime", "last_modified", "modified", "updated", "modify", "created")
# What tells one content from another where there is no time.
_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "checksum", "generation", "CRC")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def mtime_ns(info: Mapping[str, Any]) -> int:
    """A file's modification time, nanoseconds since 1970, to the microsecond.

    Where a store tells none, a number made from its ETag or checksum takes the place: it changes
    with the content, and says no more; and 0 where there is none either.

    Args:
        info: of the file, as fsspec's `info` and `find(detail=True)` give it.
    """
    for key in _TIMES:
        found = _as_ns(info.get(key))
        if found is not None:
            return found
    for key in _MARKS:
        if info.get(key):
            digest = hashlib.sha256(str(info[key]).encode()).digest()
            # As a time it lies before 2116, which every file system can hold.
            return int.from_bytes(digest[:8], "little") >> 2
    return 0


def _as_ns(value: object) -> int | None:
    if isinstance(value, str):
        # As RFC 3659, section 2.3, has it: 20261123120000, and perhaps a fraction.
        digits = re.fullmatch(r"(\d{8})(\d{6}(\.\d+)?)", value)
        try:
            value = datetime.fromisoformat("T".join(digits.groups()[:2]) if digits else value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return (moment - _EPOCH) // _MICROSECOND * 1000
    if isinstance(value, int | float):
        return round(value * 1e6) * 1000
    return None
