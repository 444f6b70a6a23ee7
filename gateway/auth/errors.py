"""What can go wrong with keys.

KeyringError
|-- AuthError          the presented key does not open anything (401)
|-- AuthUnavailable    the key cannot be checked now (503, never 401)
|-- TermsUnreadable    what the key may spend is stored and cannot be read (503, 409 to admins)
|-- KeyNotFound        no key with this public id (404)
|-- KeyReadOnly        the key belongs to the configuration file (409)
`-- ReplayConflict     the idempotency key was used for another request (422)
"""

from __future__ import annotations

from typing import Literal

AuthReason = Literal["missing", "malformed", "invalid", "revoked", "expired"]

_MESSAGES: dict[AuthReason, str] = {
    "missing": "No API key was given. Send it as 'Authorization: Bearer th-...' or 'x-api-key'.",
    "malformed": "The API key is malformed: a key looks like th-<12 characters>-<secret>.",
    "invalid": "Incorrect API key.",
    "revoked": "This API key has been revoked.",
    "expired": "This API key has expired.",
}


class KeyringError(Exception):
    """Any failure of the keyring."""


class AuthError(KeyringError):
    """`reason` tells which; `invalid` stands for an unknown key and for a wrong secret alike, so
    that nobody can find out which keys exist. The text is meant for the client."""

    def __init__(self, reason: AuthReason) -> None:
        super().__init__(_MESSAGES[reason])
        self.reason: AuthReason = reason


class AuthUnavailable(KeyringError):
    """The database does not answer, or too many unknown keys are being looked up."""

    def __init__(self, message: str = "API keys cannot be checked at the moment.") -> None:
        super().__init__(message)


class TermsUnreadable(KeyringError):
    """Terms of the key, its team or its organisation that no ledger can keep. `fault` is
    the principal's."""

    def __init__(self, fault: str) -> None:
        super().__init__(f"The terms of {fault}. An administrator has to set them again.")


class KeyNotFound(KeyringError):
    def __init__(self, key_id: str) -> None:
        super().__init__(f"no key with the public id {key_id!r}")
        self.key_id = key_id


class KeyReadOnly(KeyringError):
    def __init__(self, key_id: str) -> None:
        super().__init__(f"key {key_id!r} comes from the configuration file; remove it there")
        self.key_id = key_id


class ReplayConflict(KeyringError):
    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was already used for a different request")
