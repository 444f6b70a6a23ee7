"""The checks of `[learning]` and `[learning.shadow]`."""

from __future__ import annotations

import math

from gateway.config.errors import ConfigError
from gateway.config.model import Config
from routers.residency import LabelError, check_label

_MAX_ROWS = 10_000_000


def check_learning(config: Config) -> None:
    """Raises ConfigError with the path of the key."""
    learning = config.learning
    for i, label in enumerate(learning.capture_labels):
        try:
            check_label(label)
        except LabelError as exc:
            raise ConfigError(f"learning.capture_labels[{i}]", str(exc)) from exc
    if not 0 < learning.retention_days <= 3650:
        raise ConfigError("learning.retention_days", "must be above 0 and at most 3650")
    if not 1 <= learning.max_rows <= _MAX_ROWS:
        raise ConfigError("learning.max_rows", f"must be between 1 and {_MAX_ROWS}")
    _check_shadow(config)


def _check_shadow(config: Config) -> None:
    shadow = config.learning.shadow
    where = "learning.shadow"
    if not 0 <= shadow.share <= 1:
        raise ConfigError(f"{where}.share", "must be between 0 and 1")
    if not 0 <= shadow.max_usd_per_day <= 9_000_000:
        raise ConfigError(f"{where}.max_usd_per_day", "must be between 0 and 9,000,000")
    for key in ("concurrency", "queue"):
        if not 1 <= getattr(shadow, key) <= 10_000:
            raise ConfigError(f"{where}.{key}", "must be between 1 and 10,000")
    if not 0 < shadow.timeout < math.inf:
        raise ConfigError(f"{where}.timeout", "must be above 0 and finite")
    for key in ("backend", "judge"):
        named = getattr(shadow, key)
        if named:
            _check_model(config, named, f"{where}.{key}")
    if shadow.share == 0:
        return
    if not shadow.judge:
        raise ConfigError(f"{where}.judge", "missing: name the BACKEND/MODEL that compares answers")
    if not config.learning.capture:
        raise ConfigError(
            f"{where}.share", "needs learning.capture = true: a compared conversation is kept"
        )


def _check_model(config: Config, named: str, where: str) -> None:
    backend, _, model = named.partition("/")
    if backend not in config.backends:
        raise ConfigError(where, f"unknown backend {backend!r}")
    if model not in config.backends[backend].models:
        raise ConfigError(where, f"backend {backend!r} has no model {model!r}")
