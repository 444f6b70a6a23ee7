"""The form of a client key, `th-<12 public>-<secret>`, and the hash under which it is kept."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from base64 import urlsafe_b64encode
from collections.abc import Callable

PUBLIC_LENGTH = 12
PREFIX = "th-"
PUBLIC_END = len(PREFIX) + PUBLIC_LENGTH

_ALPHABET = string.ascii_lowercase + string.digits
_PUBLIC = re.compile(r"[a-z0-9]{12}")
_KEY = re.compile(r"th-([a-z0-9]{12})-([A-Za-z0-9_-]{43})")

RandomBytes = Callable[[int], bytes]


def parse_key(text: str) -> tuple[str, str] | None:
    """The public id and the secret; None when the text does not have the form of a key."""
    match = _KEY.fullmatch(text)
    return None if match is None else (match.group(1), match.group(2))


def is_public_id(text: str) -> bool:
    return _PUBLIC.fullmatch(text) is not None


def format_key(public: str, secret: str) -> str:
    return f"{PREFIX}{public}-{secret}"


def new_key(random_bytes: RandomBytes = secrets.token_bytes) -> str:
    """A fresh key: about 61 bits of public id, 256 bits of secret."""
    # Bytes of 252 and above would favour the first letters; drawing more than needed makes a
    # second round unlikely.
    public = ""
    while len(public) < PUBLIC_LENGTH:
        public += "".join(_ALPHABET[b % 36] for b in random_bytes(24) if b < 252)
    secret = urlsafe_b64encode(random_bytes(32)).rstrip(b"=").decode("ascii")
    return format_key(public[:PUBLIC_LENGTH], secret)


class KeyHasher:
    """Keyed BLAKE2b (RFC 7693) over the whole key, so a hash fits one public id only.

    A fast hash is right here: a 256-bit random secret cannot be guessed from it, unlike a
    password, and it is computed for every request. `hash_key` may have any length.
    """

    __slots__ = ("_keyed",)

    def __init__(self, hash_key: bytes) -> None:
        key = hashlib.blake2b(hash_key, digest_size=64, person=b"tollhouse-auth").digest()
        self._keyed = hashlib.blake2b(key=key, digest_size=32)

    def digest(self, key: str) -> bytes:
        """32 bytes. `key` is the whole `th-...` text."""
        state = self._keyed.copy()
        state.update(key.encode("ascii", "replace"))
        return state.digest()
