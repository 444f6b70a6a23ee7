"""Where a command writes what it was asked for: a file that is whole or not there, or a stream."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

# A file that only its owner may read.
PRIVATE = 0o600
STDOUT = 1
_STANDARD = {"/dev/stdout": STDOUT, "/dev/stderr": 2}
_NUMBERED = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")


def descriptor(path: Path) -> int | None:
    """The number of the open file that a path names; None for a path of the file system. Opened by
    its path, a file behind standard output would be written from its beginning."""
    if (named := _STANDARD.get(str(path))) is not None:
        return named
    numbered = _NUMBERED.fullmatch(str(path))
    return int(numbered[1]) if numbered else None


def write_whole(path: Path, parts: Iterable[bytes], mode: int = 0o666) -> None:
    """Write a file that appears when it is complete, or not at all; a link stays, and its target
    is written. `mode` is that of the file, less the umask. A device or a pipe is written to as it
    stands, and what names an open file of this process (`/dev/stdout`, `/dev/fd/3`) goes on where
    that is. Raises OSError."""
    if (opened := descriptor(path)) is not None:
        sys.stdout.flush()
        with os.fdopen(os.dup(opened), "wb") as stream:
            stream.writelines(parts)
        return
    if path.exists() and not path.is_file():
        # Moving a file to its place would take the device itself away.
        with path.open("wb") as file:
            file.writelines(parts)
        return
    target = path.resolve()
    half = target.with_name(f".{target.name}.part")
    try:
        with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.writelines(parts)
        half.replace(target)
    finally:
        half.unlink(missing_ok=True)
