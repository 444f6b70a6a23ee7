"""Client keys: who presents them, and how they are made and revoked."""

from __future__ import annotations

from gateway.auth.admin import Created, KeyAdmin
from gateway.auth.errors import (
    AuthError,
    AuthUnavailable,
    KeyNotFound,
    KeyReadOnly,
    KeyringError,
    ReplayConflict,
    TermsUnreadable,
)
from gateway.auth.from_config import (
    admin_token,
    check_config_keys,
    config_keys,
    config_principal,
    config_scopes,
    hash_key,
)
from gateway.auth.keyring import Keyring
from gateway.auth.keys import KeyHasher, format_key, is_public_id, new_key, parse_key
from gateway.auth.principal import KeyInfo, KeySpec, Principal, ScopeInfo, Terms
from gateway.auth.secret_file import SecretFileError, load_or_create_secret

__all__ = [
    "AuthError",
    "AuthUnavailable",
    "Created",
    "KeyAdmin",
    "KeyHasher",
    "KeyInfo",
    "KeyNotFound",
    "KeyReadOnly",
    "KeySpec",
    "Keyring",
    "KeyringError",
    "Principal",
    "ReplayConflict",
    "ScopeInfo",
    "SecretFileError",
    "Terms",
    "TermsUnreadable",
    "admin_token",
    "check_config_keys",
    "config_keys",
    "config_principal",
    "config_scopes",
    "format_key",
    "hash_key",
    "is_public_id",
    "load_or_create_secret",
    "new_key",
    "parse_key",
]
