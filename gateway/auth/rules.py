"""What a key and a scope may consist of; the same for the configuration and the admin API."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from gateway.auth.principal import KeySpec, ScopeInfo, Terms
from gateway.ledger import MAX_NANO
from gateway.windows import MUST_BE, is_window
from routers.residency import LabelError, check_label

MAX_ITEMS = 64
MAX_LIMIT = 10**12

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_USER = re.compile(r"[\x21-\x7e]{0,128}")
_TAG = re.compile(r"[A-Za-z0-9_.:=/-]{1,64}")
_ALLOW = re.compile(r"[A-Za-z0-9_.:*/@+-]{1,200}")
_SCOPE = re.compile(r"(org|team):[A-Za-z0-9_.-]{1,64}")


class Invalid(ValueError):
    """`field` is the name that the configuration and the admin API share, with an index for an
    array's item."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


def check_spec(spec: KeySpec) -> None:
    """Raises Invalid."""
    check_name("org", spec.org)
    if spec.team:
        check_name("team", spec.team)
    if _USER.fullmatch(spec.user) is None:
        raise Invalid("user", "at most 128 printable ASCII characters without spaces")
    check_labels(spec.labels)
    _each("allow", spec.allow, _matches(_ALLOW, "not a pattern of backend/model"))
    _each("tags", spec.tags, _matches(_TAG, "1 to 64 of letters, digits and _.:=/-"))
    check_terms(spec.terms)


def check_scope(info: ScopeInfo) -> None:
    """Raises Invalid."""
    if not is_scope_id(info.id):
        raise Invalid("id", "must be org:NAME or team:NAME")
    check_labels(info.labels)
    check_terms(info.terms)


def check_terms(terms: Terms) -> None:
    """Raises Invalid."""
    if terms.budget is not None and not 0 <= terms.budget <= MAX_NANO:
        raise Invalid("budget_usd", "must be between 0 and 9,000,000")
    if not is_window(terms.window):
        raise Invalid("window", MUST_BE)
    for name in ("requests_per_minute", "tokens_per_minute", "concurrency"):
        value = getattr(terms, name)
        if value is not None and not 0 < value <= MAX_LIMIT:
            raise Invalid(name, f"must be between 1 and {MAX_LIMIT}")


def check_labels(labels: tuple[str, ...]) -> None:
    """Raises Invalid."""

    def label(text: str) -> str | None:
        try:
            check_label(text)
        except LabelError as exc:
            return str(exc)
        return None

    _each("labels", labels, label)


def check_name(field: str, name: str) -> None:
    """Raises Invalid."""
    if _NAME.fullmatch(name) is None:
        raise Invalid(field, "1 to 64 of letters, digits, '_', '.' and '-'")


def is_scope_id(text: str) -> bool:
    return _SCOPE.fullmatch(text) is not None


def _each(field: str, items: Iterable[str], fault: Callable[[str], str | None]) -> None:
    listed = list(items)
    if len(listed) > MAX_ITEMS:
        raise Invalid(field, f"at most {MAX_ITEMS} items")
    for i, item in enumerate(listed):
        message = fault(item)
        if message is not None:
            raise Invalid(f"{field}[{i}]", message)


def _matches(pattern: re.Pattern[str], message: str) -> Callable[[str], str | None]:
    return lambda text: None if pattern.fullmatch(text) else message
