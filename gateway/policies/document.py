"""One policy document: its check, its canonical form, and the ETag of a version of it."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from gateway.config import Config
from gateway.config.convert import convert
from gateway.config.errors import ConfigError
from gateway.config.load import check_policy
from routers.decide import ActivePolicy
from routers.types import Policy

_encoder = msgspec.json.Encoder(order="deterministic")


class PolicyVersion(ActivePolicy, frozen=True):
    """One version of a policy, and its strong ETag (RFC 9110, 8.8.3).

    In the database versions count from 1. A policy from the configuration file has a number made
    from its content instead, so that whatever is kept under a version is not found after an edit.
    """

    etag: str


class Checker:
    """Checks documents against the backends and tiers of a configuration."""

    def __init__(self, config: Config) -> None:
        self._backends = frozenset(config.backends)
        self._tiers = frozenset(b.tier for b in config.backends.values()) | {"local", "frontier"}

    def parse(self, document: Any) -> Policy:
        """Raises ConfigError with the path inside the document."""
        policy = convert(document, Policy, "")
        self.check(policy)
        return policy

    def check(self, policy: Policy) -> None:
        try:
            check_policy(policy, "", self._backends, self._tiers)
        except ConfigError as exc:
            raise ConfigError(exc.path.lstrip("."), exc.message) from exc


def encode(policy: Policy) -> bytes:
    """The canonical form: the same policy always gives the same bytes."""
    return _encoder.encode(policy)


def decode(data: str | bytes) -> Policy:
    """Raises ConfigError: a newer release may have written what this one does not know."""
    try:
        return msgspec.json.decode(data, type=Policy)
    except msgspec.DecodeError as exc:
        raise ConfigError("", f"not a policy document: {exc}") from exc


def numbered(name: str, version: int, policy: Policy) -> PolicyVersion:
    content = hashlib.sha256(encode(policy)).hexdigest()[:16]
    return PolicyVersion(name, version, policy, f'"{version}-{content}"')


def from_file(name: str, policy: Policy) -> PolicyVersion:
    content = hashlib.sha256(encode(policy)).digest()
    version = int.from_bytes(content[:4], "big") & 0x7FFF_FFFF
    return PolicyVersion(name, version, policy, f'"{content.hex()[:16]}"')
