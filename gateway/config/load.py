"""Reads one TOML file into a Config: substitution, conversion, and the checks across sections."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Container, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from backends.prices import Price, PriceError, in_tiers, nano_usd
from backends.profiles import CAPABILITIES
from backends.providers import load_providers
from gateway.config.convert import convert
from gateway.config.errors import ConfigError, why_unreadable
from gateway.config.learning import check_learning
from gateway.config.model import SECRET_FIELDS, BackendConfig, Config, EngineConfig, ModelConfig
from gateway.windows import MUST_BE, is_window, window_text
from routers.budget import curve_problem
from routers.cards import MAX_OFFSET
from routers.patterns import CLASSES
from routers.residency import LabelError, check_label
from routers.types import Policy

BUILT_IN = ("embedded", "scripted")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-((?:(?!\$\{)[^}])*))?\}")
_FORMS = (
    "write ${NAME} or ${NAME:-default}, the name of letters, digits and '_', "
    "the default without '${' and '}'"
)
_SCOPE = re.compile(r"^(org|team):[A-Za-z0-9_.-]{1,64}$")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
_AUTO = "auto:"
_STORES = ("redis://", "rediss://", "unix://")
_MAX_CACHE_TTL = 365 * 86_400
_MAX_WORKERS = 1024
_MAX_KEEP_DAYS = 36_500
_MAX_MB = 1_000_000_000
_MAX_THREADS = 1024
_MAX_TOKENS = 1_000_000_000
# What the embedded engine counts its tokens with.
_MAX_INT32 = 2**31 - 1


def load_config(path: str | Path, env: Mapping[str, str] | None = None) -> Config:
    """Raises ConfigError naming the file or the key's path."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(str(path), f"cannot be read: {why_unreadable(exc)}") from exc
    return parse_config(text, env, str(path))


def parse_config(text: str, env: Mapping[str, str] | None = None, name: str = "") -> Config:
    """`env` defaults to the process's environment; `name` is of the file that the text is from.
    Raises ConfigError."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(name, f"not valid TOML: {exc}") from exc
    resolved = _resolve(raw, "", os.environ if env is None else env)
    config = convert(resolved, Config)
    if "default" not in config.policies:
        policies = {"default": default_policy(), **config.policies}
        config = msgspec.structs.replace(config, policies=policies)
    check(config)
    return config


def default_policy() -> Policy:
    text = files("gateway.config").joinpath("default_policy.toml").read_text(encoding="utf-8")
    return convert(tomllib.loads(text), Policy, "policies.default")


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the configuration file."""
    document = msgspec.json.schema(Config)
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["title"] = "Tollhouse configuration"
    return document


def _resolve(value: Any, path: str, env: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: _resolve(v, f"{path}.{k}" if path else k, env) for k, v in value.items()}
    if isinstance(value, list):
        return [_resolve(v, f"{path}[{i}]", env) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value
    if path.rsplit(".", 1)[-1] in SECRET_FIELDS:
        return _secret(value, path, env)
    # Only what the file says is read for references, never what the environment puts there.
    if "${" in _REFERENCE.sub("", value):
        raise ConfigError(path, f"not a reference: {_FORMS}")
    return _REFERENCE.sub(lambda match: _referenced(match, path, env), value)


def _secret(value: str, path: str, env: Mapping[str, str]) -> str:
    """No message repeats the value: it may be the secret itself."""
    if not value:
        return value
    if "${" not in value:
        raise ConfigError(path, "a secret is given by reference only: write ${NAME}")
    match = _REFERENCE.fullmatch(value)
    if match is None:
        raise ConfigError(path, f"a secret is given by one reference as a whole: {_FORMS}")
    found = _referenced(match, path, env)
    if not found and match.group(2) != "":
        name = match.group(1)
        raise ConfigError(
            path, f"environment variable {name} is empty; where none is needed, write ${{{name}:-}}"
        )
    return found


def _referenced(match: re.Match[str], path: str, env: Mapping[str, str]) -> str:
    name, default = match.group(1), match.group(2)
    found = env.get(name, default)
    if found is None:
        raise ConfigError(path, f"environment variable {name} is not set")
    return found


def check(config: Config) -> None:
    """The checks that need more than one section. Raises ConfigError."""
    _check_server(config)
    for name, backend in config.backends.items():
        _check_backend(name, backend)
    _check_policies(config)
    if config.policy.source == "file":
        check_policy_names(config, config.policies)
    for alias, target in config.aliases.items():
        _check_target(config, target, f"aliases.{alias}")
    _check_scopes(config)
    _check_cards(config)
    check_learning(config)


def _check_server(config: Config) -> None:
    server = config.server
    if not 0 <= server.port <= 65535:
        raise ConfigError("server.port", "must be between 0 and 65535")
    if not 1 <= server.workers <= _MAX_WORKERS:
        raise ConfigError("server.workers", f"must be at least 1 and at most {_MAX_WORKERS:,}")
    for key in ("max_body_mb", "max_in_flight", "request_deadline"):
        _above_0(getattr(server, key), f"server.{key}")
    _not_negative(server.drain, "server.drain")
    if not 1 <= config.store.lease < math.inf:
        raise ConfigError("store.lease", "must be at least 1 second and finite")
    _above_0(config.store.deadline_ms, "store.deadline_ms")
    if not 0 <= config.store.maxmemory_mb <= _MAX_MB:
        raise ConfigError("store.maxmemory_mb", f"must be between 0 (no limit) and {_MAX_MB:,}")
    if config.store.url and not config.store.url.startswith(_STORES):
        raise ConfigError("store.url", "must start with redis://, rediss:// or unix://")
    if config.database.url and "://" not in config.database.url:
        raise ConfigError("database.url", "must be a SQLAlchemy URL")
    keep_days = config.records.keep_days
    if keep_days is not None and not 1 <= keep_days <= _MAX_KEEP_DAYS:
        raise ConfigError("records.keep_days", f"must be between 1 and {_MAX_KEEP_DAYS:,}")
    if not 1 <= config.retry.attempts <= 3:
        raise ConfigError("retry.attempts", "must be between 1 and 3")
    _not_negative(config.retry.max_wait, "retry.max_wait")
    _not_negative(config.cache.max_entry_kb, "cache.max_entry_kb")
    if not 0 <= config.telemetry.sample <= 1:
        raise ConfigError("telemetry.sample", "must be between 0 and 1")


def _above_0(value: float, path: str) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(path, "must be above 0 and finite")


def _not_negative(value: float, path: str) -> None:
    if not 0 <= value < math.inf:
        raise ConfigError(path, "must be finite and not negative")


def _check_backend(name: str, backend: BackendConfig) -> None:
    where = f"backends.{name}"
    if not _NAME.match(name):
        raise ConfigError(where, "a name has letters, digits, '_', '-' and '.' only")
    if backend.provider not in BUILT_IN:
        provider = load_providers().get(backend.provider)
        if provider is None:
            known = ", ".join(sorted((*load_providers(), *BUILT_IN)))
            raise ConfigError(
                f"{where}.provider", f"unknown provider {backend.provider!r}; known: {known}"
            )
        if not (backend.base_url or provider.base_url):
            raise ConfigError(f"{where}.base_url", f"{backend.provider} has no fixed address")
    urls = backend.base_url if isinstance(backend.base_url, tuple) else (backend.base_url,)
    for url in filter(None, urls):
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{where}.base_url", "must start with http:// or https://")
    for key in ("connect", "first_token", "idle", "total"):
        seconds = getattr(backend.timeouts, key)
        if seconds is not None:
            _above_0(seconds, f"{where}.timeouts.{key}")
    try:
        nano_usd(backend.gpu_second_usd, f"{where}.gpu_second_usd")
    except PriceError as exc:
        raise ConfigError("", str(exc)) from exc
    if backend.engine is not None:
        _check_engine(backend.engine, f"{where}.engine")
    if not backend.models:
        raise ConfigError(f"{where}.models", "names no model")
    for model, settings in backend.models.items():
        _check_model(settings, f"{where}.models.{model}")


def _check_engine(engine: EngineConfig, where: str) -> None:
    if min(engine.parallel, engine.context) < 1:
        raise ConfigError(where, "parallel and context must be at least 1")
    if engine.parallel * engine.context > _MAX_INT32:
        raise ConfigError(where, f"parallel * context must be at most {_MAX_INT32:,}")
    if not 0 <= engine.threads <= _MAX_THREADS:
        raise ConfigError(
            f"{where}.threads", f"must be between 0 (every core) and {_MAX_THREADS:,}"
        )


def _check_model(model: ModelConfig, where: str) -> None:
    model_price(model, where)
    for key in ("context_window", "max_output"):
        value = getattr(model, key)
        if value is not None and not 0 <= value <= _MAX_TOKENS:
            raise ConfigError(
                f"{where}.{key}", f"must not be negative, and at most {_MAX_TOKENS:,}"
            )
    for i, name in enumerate(model.capabilities or ()):
        if name not in CAPABILITIES:
            known = ", ".join(sorted(CAPABILITIES))
            raise ConfigError(
                f"{where}.capabilities[{i}]", f"unknown capability {name!r}; known: {known}"
            )


def model_price(model: ModelConfig, where: str) -> Price | None:
    """The price that the configuration gives, or None when it gives none."""
    if model.input is None and model.output is None:
        more = (model.cached, model.cache_write, model.audio_input, model.audio_output)
        if any(part is not None for part in more) or model.tiers:
            raise ConfigError(f"{where}.input", "missing: a price needs input and output")
        return None
    if model.input is None or model.output is None:
        missing = "input" if model.input is None else "output"
        raise ConfigError(f"{where}.{missing}", "missing: a price needs input and output")
    try:
        price = Price.from_usd_per_million(
            input=model.input,
            output=model.output,
            cached=model.cached,
            cache_write=model.cache_write,
            audio_input=model.audio_input,
            audio_output=model.audio_output,
            where=where,
        )
        return in_tiers(price, model.tiers, where)
    except PriceError as exc:
        raise ConfigError("", str(exc)) from exc


def _check_policies(config: Config) -> None:
    tiers = {b.tier for b in config.backends.values()} | {"local", "frontier"}
    for name, policy in config.policies.items():
        check_policy(policy, f"policies.{name}", frozenset(config.backends), frozenset(tiers))


def check_policy_names(config: Config, known: Container[str]) -> None:
    """Whether every policy that the configuration names is there. Raises ConfigError."""
    named = {"policy.default": config.policy.default}
    for alias, target in config.aliases.items():
        if target.startswith(_AUTO):
            named[f"aliases.{alias}"] = target.removeprefix(_AUTO)
    for i, key in enumerate(config.keys):
        if key.policy:
            named[f"keys[{i}].policy"] = key.policy
    for path, name in named.items():
        if name not in known:
            raise ConfigError(path, f"no policy named {name!r}")


def check_policy(
    policy: Policy, where: str, backends: frozenset[str], tiers: frozenset[str]
) -> None:
    """Checks one policy document against what exists. Raises ConfigError."""
    for key in ("weak_tier", "strong_tier", "unclassified"):
        if getattr(policy, key) not in tiers:
            raise ConfigError(f"{where}.{key}", f"no backend has tier {getattr(policy, key)!r}")
    if not -1 <= policy.threshold <= 1:
        raise ConfigError(f"{where}.threshold", "must be between -1 and 1")
    _check_promise(policy, where)
    for i, pattern in enumerate(policy.prefer):
        backend = pattern.split("/", 1)[0]
        if "*" not in backend and backend not in backends:
            raise ConfigError(f"{where}.prefer[{i}]", f"unknown backend {backend!r}")
    for label, requirement in policy.labels.items():
        try:
            check_label(label)
        except LabelError as exc:
            raise ConfigError(f"{where}.labels.{label}", str(exc)) from exc
        for i, tier in enumerate(requirement.tiers):
            if tier not in tiers:
                raise ConfigError(
                    f"{where}.labels.{label}.tiers[{i}]", f"no backend has tier {tier!r}"
                )
    for i, label in enumerate(policy.mandatory_labels):
        if label not in policy.labels:
            raise ConfigError(f"{where}.mandatory_labels[{i}]", f"unknown label {label!r}")
    problem = curve_problem(policy.pressure)
    if problem is not None:
        raise ConfigError(f"{where}.pressure", problem)
    if policy.opaque_label and policy.opaque_label not in policy.labels:
        raise ConfigError(f"{where}.opaque_label", f"unknown label {policy.opaque_label!r}")
    for i, name in enumerate(policy.detect):
        if name not in CLASSES:
            raise ConfigError(f"{where}.detect[{i}]", f"unknown data class {name!r}")
    _above_0(policy.score_deadline_ms, f"{where}.score_deadline_ms")
    if not 0 <= policy.min_confidence <= 1:
        raise ConfigError(f"{where}.min_confidence", "must be between 0 and 1")
    if not 0 <= policy.cache_ttl <= _MAX_CACHE_TTL:
        raise ConfigError(
            f"{where}.cache_ttl", f"must be between 0 and {_MAX_CACHE_TTL:,} seconds (a year)"
        )


def _check_promise(policy: Policy, where: str) -> None:
    """What the policy promises is one thing, possible, and not beside the point."""
    if not 0 <= policy.key_share <= 1:
        raise ConfigError(f"{where}.key_share", "must be between 0 and 1")
    target = policy.target
    if target is None:
        return
    given = [name for name in target.__struct_fields__ if getattr(target, name) is not None]
    if len(given) != 1:
        named = " and ".join(given) or "none"
        raise ConfigError(
            f"{where}.target", f"needs exactly one of share, quality, cost, violation; has {named}"
        )
    if policy.route != "score":
        raise ConfigError(f"{where}.target", f"has no effect with route = {policy.route!r}")
    name, value = given[0], getattr(target, given[0])
    if name == "share" and not 0 <= value <= 1:
        raise ConfigError(f"{where}.target.share", "must be between 0 and 1")
    if name == "quality" and not 0 < value <= 1:
        raise ConfigError(f"{where}.target.quality", "must be above 0 and at most 1")
    if name == "violation" and not 0 < value < 1:
        raise ConfigError(f"{where}.target.violation", "must be between 0 and 1, and neither")
    if name == "cost" and not 0 < value <= 1_000_000:
        raise ConfigError(f"{where}.target.cost", "must be above 0 and at most 1,000,000 USD")


def _check_target(config: Config, target: str, where: str) -> None:
    if target != "auto" and not target.startswith(_AUTO):
        _check_pair(config, target, where)


def _check_pair(config: Config, target: str, where: str) -> None:
    backend, _, model = target.partition("/")
    if backend not in config.backends:
        raise ConfigError(where, f"unknown backend {backend!r}")
    if model not in config.backends[backend].models:
        raise ConfigError(where, f"backend {backend!r} has no model {model!r}")


def _check_cards(config: Config) -> None:
    """Whether `like` is a listed card is known only with the artefact: see gateway.cards."""
    for target, card in config.router.cards.items():
        where = f"router.cards.{target}"
        _check_pair(config, target, where)
        if not (card.like or card.base) and card.offset is None:
            raise ConfigError(where, "needs like, offset or base")
        if card.like and card.base:
            raise ConfigError(f"{where}.base", "comes with like: give one of the two")
        if card.offset is not None and not -MAX_OFFSET <= card.offset <= MAX_OFFSET:
            raise ConfigError(
                f"{where}.offset", f"must be between -{MAX_OFFSET:g} and {MAX_OFFSET:g}"
            )


def _check_scopes(config: Config) -> None:
    for i, scope in enumerate(config.scopes):
        if not _SCOPE.match(scope.id):
            raise ConfigError(f"scopes[{i}].id", "must be org:NAME or team:NAME")
        _check_money(scope.budget_usd, scope.window, f"scopes[{i}]")
    for i, key in enumerate(config.keys):
        _check_money(key.budget_usd, key.window, f"keys[{i}]")


def _check_money(budget: float | None, window: str | int, where: str) -> None:
    if budget is not None and not 0 <= budget <= 9_000_000:
        raise ConfigError(f"{where}.budget_usd", "must be between 0 and 9,000,000")
    if not is_window(window_text(window)):
        raise ConfigError(f"{where}.window", MUST_BE)
