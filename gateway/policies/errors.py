"""What can go wrong with policies. A document that does not fit is a ConfigError.

PolicyError
|-- UnknownPolicy       no policy, or no version, of this name (404)
|-- PolicyReadOnly      policies come from the configuration file (409)
|-- PreconditionMissing a write did not say which version it replaces (428)
|-- PolicyStale         the version it replaces is not the active one (412)
|-- NothingToRollBack   no earlier version was ever active (409)
`-- PoliciesUnavailable the database does not answer (503)
"""

from __future__ import annotations


class PolicyError(Exception):
    """Any failure with policies."""


class UnknownPolicy(PolicyError):
    def __init__(self, name: str, version: int | None = None) -> None:
        text = f"no policy named {name!r}"
        if version is not None:
            text = f"policy {name!r} has no version {version}"
        super().__init__(text)
        self.name = name
        self.version = version


class PolicyReadOnly(PolicyError):
    def __init__(self) -> None:
        super().__init__(
            'policies come from the configuration file (policy.source = "file"); change it there'
        )


class PreconditionMissing(PolicyError):
    def __init__(self) -> None:
        super().__init__(
            "send If-Match with the ETag of the active version, or If-None-Match: * for a new name"
        )


class PolicyStale(PolicyError):
    """`etag` is the one of the active version, empty when there is none."""

    def __init__(self, etag: str) -> None:
        now = f"the active version is {etag}" if etag else "there is no such policy yet"
        super().__init__(f"the policy was changed meanwhile: {now}")
        self.etag = etag


class NothingToRollBack(PolicyError):
    def __init__(self, name: str) -> None:
        super().__init__(f"policy {name!r} has no earlier version that was active")


class PoliciesUnavailable(PolicyError):
    """Reading stays possible; nothing can be written."""
