"""What the admin API takes and gives. Money is nano-USD except where a name says USD; times are
seconds since the epoch."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.admin.problems import FieldError, invalid
from gateway.auth import KeyInfo, KeySpec, ScopeInfo, Terms
from gateway.auth.from_config import NANO, nano
from gateway.auth.rules import Invalid
from gateway.ledger import MAX_NANO, Balance, Budget
from gateway.policies import PolicyVersion, Revision
from gateway.records import DecisionRecord, UsageRecord, UsageSummary
from gateway.steering import WorkerRouting
from gateway.windows import window_text
from routers.types import Policy

MAX_LIFE_S = 100 * 365 * 86_400


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every body."""


class TermsInput(Input, frozen=True):
    """`window`: `total`, `day`, `month`, or seconds as a number or as text."""

    budget_usd: float | None = None
    window: str | int = "month"
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None

    def terms(self) -> Terms:
        """Raises Refusal for an amount that no ledger can hold."""
        budget = self.budget_usd
        if budget is not None and not 0 <= budget <= MAX_NANO / NANO:
            raise invalid("budget_usd", "must be between 0 and 9,000,000")
        return Terms(
            budget=None if budget is None else nano(budget),
            window=window_text(self.window),
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            concurrency=self.concurrency,
        )


class KeyInput(TermsInput, frozen=True):
    """`expires_in`: seconds from now, in the place of `expires_at`."""

    org: str = "default"
    team: str = ""
    user: str = ""
    labels: tuple[str, ...] = ()
    policy: str = ""
    allow: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    expires_at: float | None = None
    expires_in: float | None = None

    def spec(self, now: float) -> KeySpec:
        """`now`: seconds since the epoch. Raises Refusal for an end that cannot be, and as
        `terms`."""
        return KeySpec(
            org=self.org,
            team=self.team,
            user=self.user,
            labels=self.labels,
            policy=self.policy,
            allow=self.allow,
            tags=self.tags,
            terms=self.terms(),
            expires=self._expires(now),
        )

    def _expires(self, now: float) -> float | None:
        if self.expires_in is not None:
            if self.expires_at is not None:
                raise invalid("expires_in", "comes with expires_at: give one of the two")
            if not 0 < self.expires_in <= MAX_LIFE_S:
                raise invalid("expires_in", f"must be above 0 and at most {MAX_LIFE_S:,} seconds")
            return now + self.expires_in
        if self.expires_at is not None and not now < self.expires_at < 1e11:
            raise invalid("expires_at", "must be in the future, in seconds since the epoch")
        return self.expires_at


class KeyView(msgspec.Struct, frozen=True):
    id: str
    state: Literal["active", "revoked", "expired"]
    source: Literal["config", "database"]
    org: str
    team: str
    user: str
    labels: tuple[str, ...]
    policy: str
    allow: tuple[str, ...]
    tags: tuple[str, ...]
    budget_usd: float | None
    window: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    expires_at: float | None
    created_at: float | None
    created_by: str
    revoked_at: float | None


class CreatedKey(KeyView, frozen=True):
    """`key` is the whole key: it is shown here, once, and kept nowhere. It is null when an earlier
    request with the same Idempotency-Key made the key."""

    key: str | None


class KeyPage(msgspec.Struct, frozen=True):
    items: list[KeyView]
    next_cursor: str | None


class ScopeInput(TermsInput, frozen=True):
    """`labels` may be left out only where there are none: who sets a budget must not take away a
    residency label by saying nothing of it."""

    labels: tuple[str, ...] | None = None


class ScopeView(msgspec.Struct, frozen=True):
    id: str
    source: Literal["config", "database"]
    labels: tuple[str, ...]
    budget_usd: float | None
    window: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None


class BudgetView(msgspec.Struct, frozen=True):
    """The books of one scope in one organisation. `left` is what may still be spent or held.
    `open` is false while the books are missing: then nothing that costs money passes. `problem`:
    why the terms cannot be read; then nothing passes at all."""

    org: str
    scope: str
    open: bool
    limit: int
    spent: int
    held: int
    left: int
    window: str
    window_start: float | None
    window_end: float | None
    problem: str | None = None


class BudgetPage(msgspec.Struct, frozen=True):
    """`scopes` are the terms of teams and organisations, `items` the books of all budgets."""

    items: list[BudgetView]
    scopes: list[ScopeView]
    next_cursor: str | None


class PolicyView(msgspec.Struct, frozen=True):
    name: str
    version: int
    etag: str
    active: bool
    policy: Policy


class PolicyLine(msgspec.Struct, frozen=True):
    name: str
    version: int
    etag: str
    default: bool


class PolicyList(msgspec.Struct, frozen=True):
    source: Literal["file", "database"]
    items: list[PolicyLine]


class PolicyInput(Input, frozen=True):
    """`policy` is the document; `activate` false keeps it as a draft."""

    policy: dict[str, Any]
    comment: str = ""
    activate: bool = True


class PolicyDocument(Input, frozen=True):
    policy: dict[str, Any]


class Validation(msgspec.Struct, frozen=True):
    valid: bool
    errors: tuple[FieldError, ...] = ()


class RevisionView(msgspec.Struct, frozen=True):
    version: int
    etag: str
    active: bool
    author: str
    comment: str
    created_at: float
    activated_at: float | None


class RevisionList(msgspec.Struct, frozen=True):
    items: list[RevisionView]


class BackendList(msgspec.Struct, frozen=True):
    """Each with its models and the health of its replicas."""

    items: list[dict[str, Any]]


class RoutingList(msgspec.Struct, frozen=True):
    """One entry per worker, by name."""

    workers: list[WorkerRouting]


class ExplainInput(Input, frozen=True):
    """`request` is a chat request as a client would send it. `key` is the public id of a key;
    `labels` and `policy` come on top of what the key says."""

    request: dict[str, Any]
    key: str = ""
    labels: tuple[str, ...] = ()
    policy: str = ""


class DecisionPage(msgspec.Struct, frozen=True):
    items: list[DecisionRecord]
    next_cursor: str | None


class DecisionView(msgspec.Struct, frozen=True):
    """`seq` and `hash` are its place in the hash chain of its organisation."""

    record: DecisionRecord
    seq: int
    hash: str


class UsagePage(msgspec.Struct, frozen=True):
    items: list[UsageRecord]
    next_cursor: str | None


class UsageList(msgspec.Struct, frozen=True):
    items: list[UsageSummary]


class InvalidateInput(Input, frozen=True):
    """One of the two: the cached answers of `org`, or of `all` organisations."""

    org: str | None = None
    all: bool = False


class Invalidated(msgspec.Struct, frozen=True):
    """How many cached answers went. `file_rewritten`: whether the embedded store's file is free of
    them; null for a store that the gateway does not run."""

    answers: int
    file_rewritten: bool | None


class AuditInput(Input, frozen=True):
    """Without `org`, all organisations."""

    org: str | None = None


class AuditReport(msgspec.Struct, frozen=True):
    """`problem` says what is wrong with the chain at `seq`; null for a sound chain. Its first
    `deleted` rows are gone: by retention (`records.keep_days`), where the chain is sound."""

    org: str
    ok: bool
    rows: int
    head: str
    seq: int | None
    problem: str | None
    deleted: int


class AuditResult(msgspec.Struct, frozen=True):
    ok: bool
    items: list[AuditReport]


class ChangeView(msgspec.Struct, frozen=True):
    id: int
    at: float
    actor: str
    action: str
    target: str
    before: str
    after: str


class ChangePage(msgspec.Struct, frozen=True):
    items: list[ChangeView]
    next_cursor: str | None


def key_view(info: KeyInfo, now: float) -> KeyView:
    return KeyView(**_key_fields(info, now))


def created_key(info: KeyInfo, now: float, key: str | None) -> CreatedKey:
    return CreatedKey(**_key_fields(info, now), key=key)


def _key_fields(info: KeyInfo, now: float) -> dict[str, Any]:
    spec = info.spec
    return {
        "id": info.id,
        "state": info.state(now),
        "source": info.source,
        "org": spec.org,
        "team": spec.team,
        "user": spec.user,
        "labels": spec.labels,
        "policy": spec.policy,
        "allow": spec.allow,
        "tags": spec.tags,
        **_terms(spec.terms),
        "expires_at": spec.expires,
        "created_at": info.created or None,
        "created_by": info.created_by,
        "revoked_at": info.revoked,
    }


def _terms(terms: Terms) -> dict[str, Any]:
    return {
        "budget_usd": None if terms.budget is None else terms.budget / NANO,
        "window": terms.window,
        "requests_per_minute": terms.requests_per_minute,
        "tokens_per_minute": terms.tokens_per_minute,
        "concurrency": terms.concurrency,
    }


def scope_view(info: ScopeInfo) -> ScopeView:
    return ScopeView(id=info.id, source=info.source, labels=info.labels, **_terms(info.terms))


def budget_view(org: str, scope: str, budget: Budget, balance: Balance | None) -> BudgetView:
    if balance is None:
        return BudgetView(org, scope, False, budget.limit, 0, 0, 0, budget.window, None, None)
    left = max(0, balance.limit - balance.spent - balance.held)
    return BudgetView(
        org=org,
        scope=scope,
        open=True,
        limit=balance.limit,
        spent=balance.spent,
        held=balance.held,
        left=left,
        window=budget.window,
        window_start=balance.window_start,
        window_end=balance.window_end,
    )


def unreadable_view(org: str, scope: str, terms: Terms, problem: str) -> BudgetView:
    limit = terms.budget or 0
    return BudgetView(org, scope, False, limit, 0, 0, 0, terms.window, None, None, problem)


def policy_view(found: PolicyVersion, active: bool) -> PolicyView:
    return PolicyView(found.name, found.version, found.etag, active, found.policy)


def revision_view(found: Revision) -> RevisionView:
    return RevisionView(
        found.version,
        found.etag,
        found.active,
        found.author,
        found.comment,
        found.created,
        found.activated,
    )


def field_error(exc: Invalid) -> FieldError:
    return FieldError(exc.field, exc.message)
