"""Keys and scopes that the configuration file gives."""

from __future__ import annotations

from pathlib import Path

from gateway.auth.keys import parse_key
from gateway.auth.principal import KeyInfo, KeySpec, Principal, ScopeInfo, Terms
from gateway.auth.rules import Invalid, check_scope, check_spec
from gateway.auth.scopes import principal_of
from gateway.auth.secret_file import MIN_BYTES, SecretFileError, load_or_create_secret
from gateway.config import Config, ConfigError
from gateway.config.model import KeyConfig, ScopeConfig
from gateway.windows import window_text

NANO = 1_000_000_000
HASH_KEY_FILE = "hash-key"
ADMIN_TOKEN_FILE = "admin-token"
_FORM = "must look like th-<12 lower-case letters and digits>-<43 letters, digits, '-' and '_'>"


def hash_key(config: Config) -> bytes:
    """The configured one, or the one in the data directory, made on first use. Raises
    ConfigError."""
    return _secret(config, config.auth.hash_key, "auth.hash_key", HASH_KEY_FILE)


def admin_token(config: Config) -> str:
    """As `hash_key`, for the admin API. Raises ConfigError."""
    return _secret(config, config.admin.token, "admin.token", ADMIN_TOKEN_FILE).decode()


def check_config_keys(config: Config) -> None:
    """What the loader cannot know of keys and scopes. Raises ConfigError."""
    for name, value in (
        ("auth.hash_key", config.auth.hash_key),
        ("admin.token", config.admin.token),
    ):
        if value and len(value.encode()) < MIN_BYTES:
            raise ConfigError(name, f"must have at least {MIN_BYTES} bytes")
    config_keys(config)
    config_scopes(config)


def config_keys(config: Config) -> dict[str, tuple[str, KeyInfo]]:
    """By public id: the whole key, and what it stands for. Raises ConfigError."""
    found: dict[str, tuple[str, KeyInfo]] = {}
    for i, item in enumerate(config.keys):
        parsed = parse_key(item.key)
        if parsed is None:
            raise ConfigError(f"keys[{i}].key", _FORM)
        if parsed[0] in found:
            raise ConfigError(f"keys[{i}].key", "another key has the same public id")
        spec = _spec(item)
        try:
            check_spec(spec)
        except Invalid as exc:
            raise ConfigError(f"keys[{i}].{exc.field}", exc.message) from exc
        found[parsed[0]] = (item.key, KeyInfo(parsed[0], spec, "config"))
    return found


def config_scopes(config: Config) -> dict[str, ScopeInfo]:
    """Raises ConfigError."""
    found: dict[str, ScopeInfo] = {}
    for i, item in enumerate(config.scopes):
        info = ScopeInfo(item.id, "config", item.labels, _terms(item))
        if item.id in found:
            raise ConfigError(f"scopes[{i}].id", "given twice")
        try:
            check_scope(info)
        except Invalid as exc:
            raise ConfigError(f"scopes[{i}].{exc.field}", exc.message) from exc
        found[item.id] = info
    return found


def config_principal(config: Config, key_id: str) -> Principal:
    """Whom a key of the configuration stands for, without a database. Raises KeyError for another
    key, and ConfigError."""
    _, info = config_keys(config)[key_id]
    return principal_of(info, config_scopes(config))


def nano(usd: float) -> int:
    """Nano-USD; exact for amounts up to 9 million USD with 9 decimals or fewer."""
    return round(usd * NANO)


def _terms(item: KeyConfig | ScopeConfig) -> Terms:
    return Terms(
        budget=None if item.budget_usd is None else nano(item.budget_usd),
        window=window_text(item.window),
        requests_per_minute=item.requests_per_minute,
        tokens_per_minute=item.tokens_per_minute,
        concurrency=item.concurrency,
    )


def _spec(item: KeyConfig) -> KeySpec:
    return KeySpec(
        org=item.org,
        team=item.team,
        user=item.user,
        labels=item.labels,
        policy=item.policy,
        allow=item.allow,
        tags=item.tags,
        terms=_terms(item),
    )


def _secret(config: Config, given: str, path: str, file: str) -> bytes:
    if given:
        return given.encode()
    try:
        return load_or_create_secret(Path(config.data_dir) / file)
    except SecretFileError as exc:
        raise ConfigError(path, str(exc)) from exc
