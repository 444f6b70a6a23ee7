"""The standard streams of all commands, any of which a process may be started without: input and
output tell when they cannot be used."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from gateway.cli.errors import USAGE, CliError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def stdin() -> IO[bytes]:
    """Raises CliError where there is none."""
    plain: object = sys.stdin
    if plain is None:
        raise CliError("standard input cannot be read: it is closed", USAGE)
    return sys.stdin.buffer


@contextlib.contextmanager
def some_stderr() -> Iterator[None]:
    """Within, standard error can be written, to nowhere where there is none: what a command does
    must not depend on whether it is heard."""
    plain: object = sys.stderr
    if plain is not None:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


class _Descriptor(io.FileIO):
    """Below the buffers, where it does not matter who writes and when that is flushed."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            # The reader has seen enough, which `main` ends on quietly.
            raise
        except OSError as exc:
            raise CliError(f"standard output cannot be written: {exc.strerror}") from exc


class _Closed(io.RawIOBase):
    """Stands where the process was started without a standard output."""

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        raise CliError("standard output cannot be written: it is closed")


@contextlib.contextmanager
def told_stdout() -> Iterator[None]:
    """Within, a write to standard output that fails raises CliError, or BrokenPipeError when its
    reader has gone; at the end nothing is left to write. One that is no file is left as it is."""
    told = _told()
    if told is None:
        yield
        return
    with contextlib.redirect_stdout(told):
        try:
            yield
            told.flush()
        finally:
            # What ended the command goes before what could not be written after it; and closed,
            # it is not tried once more when the process ends.
            with contextlib.suppress(CliError, BrokenPipeError):
                told.close()


def _told() -> io.TextIOWrapper | None:
    plain: object = sys.stdout
    if plain is None:
        return io.TextIOWrapper(io.BufferedWriter(_Closed()), encoding="utf-8")
    if not isinstance(plain, io.TextIOWrapper):
        return None
    try:
        descriptor = plain.fileno()
    except OSError:
        # In memory: whoever calls `main` wants to see it.
        return None
    plain.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(descriptor, "wb", closefd=False)),
        encoding=plain.encoding,
        errors=plain.errors,
        line_buffering=plain.line_buffering or plain.write_through,
    )
