"""A secret that is made once and then read by every worker."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

MIN_BYTES = 16


class SecretFileError(Exception):
    """The file cannot be read or made, or holds too little."""


def random_secret() -> str:
    """256 random bits as 43 characters of urlsafe base64."""
    return secrets.token_urlsafe(32)


def load_or_create_secret(path: str | Path, make: Callable[[], str] = random_secret) -> bytes:
    """The content of `path`, without surrounding blanks; made on first use, mode 0600.

    Safe when several processes start together: all of them return the same secret. Raises
    SecretFileError.
    """
    target = Path(path)
    try:
        if not target.exists():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create(target, make())
        secret = target.read_bytes().strip()
    except OSError as exc:
        raise SecretFileError(f"{target}: {exc.strerror or exc}") from exc
    if len(secret) < MIN_BYTES:
        raise SecretFileError(f"{target}: holds less than {MIN_BYTES} bytes")
    return secret


def _create(target: Path, secret: str) -> None:
    draft = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(f"{secret}\n")
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole or not at all, and only for the first of several processes.
        with contextlib.suppress(FileExistsError):
            os.link(draft, target)
    finally:
        os.unlink(draft)
