"""Decisions, usage, and the check of the decisions' hash chain."""

from __future__ import annotations

from typing import Annotated, get_args

from litestar import get, post
from litestar.params import JSONBody, QueryParameter

from gateway.admin.context import Context
from gateway.admin.fields import Cursor, Limit, Name, Text, check_text
from gateway.admin.problems import Refusal, invalid
from gateway.admin.views import (
    AuditInput,
    AuditReport,
    AuditResult,
    DecisionPage,
    DecisionView,
    UsageList,
    UsagePage,
)
from gateway.records import (
    ChainReport,
    RecordFilter,
    get_decision,
    list_decisions,
    list_usage,
    summarize_usage,
    verify_chain,
)
from gateway.records.queries import Dimension

Since = Annotated[
    float | None, QueryParameter(ge=0, description="Seconds since the epoch, inclusive.")
]
Until = Annotated[
    float | None, QueryParameter(ge=0, description="Seconds since the epoch, exclusive.")
]
By = Annotated[
    str,
    QueryParameter(
        pattern="^[a-z_,]{1,100}$",
        description="Dimensions separated by commas: " + ", ".join(get_args(Dimension)),
    ),
]


@get("/decisions", summary="Decisions, newest first")
async def decisions(
    context: Context,
    org: Text = None,
    team: Text = None,
    key: Text = None,
    request_id: Text = None,
    policy: Text = None,
    reason: Text = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> DecisionPage:
    wanted = RecordFilter(
        org=org,
        team=team,
        key_id=key,
        request_id=request_id,
        policy=policy,
        reason=reason,
        since=since,
        until=until,
    )
    try:
        found, following = await context.database.read(list_decisions, wanted, limit, cursor)
    except ValueError as exc:
        raise invalid("cursor", "not a cursor of this list") from exc
    return DecisionPage(found, following)


@get("/decisions/{decision_id:str}", summary="One decision and its place in the chain")
async def decision(context: Context, decision_id: Name) -> DecisionView:
    check_text("id", decision_id)
    found = await context.database.read(get_decision, decision_id)
    if found is None:
        raise Refusal(404, "There is no decision with this id.")
    return DecisionView(found.record, found.seq, found.hash)


@get("/usage", summary="Upstream attempts, newest first")
async def usage(
    context: Context,
    org: Text = None,
    team: Text = None,
    key: Text = None,
    request_id: Text = None,
    policy: Text = None,
    backend: Text = None,
    model: Text = None,
    tier: Text = None,
    outcome: Text = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> UsagePage:
    wanted = RecordFilter(
        org=org,
        team=team,
        key_id=key,
        request_id=request_id,
        policy=policy,
        backend=backend,
        model=model,
        tier=tier,
        outcome=outcome,
        since=since,
        until=until,
    )
    try:
        found, following = await context.database.read(list_usage, wanted, limit, cursor)
    except ValueError as exc:
        raise invalid("cursor", "not a cursor of this list") from exc
    return UsagePage(found, following)


@get("/usage:summary", summary="Tokens and cost, summed")
async def usage_summary(
    context: Context,
    by: By = "backend,model",
    org: Text = None,
    team: Text = None,
    key: Text = None,
    policy: Text = None,
    backend: Text = None,
    model: Text = None,
    tier: Text = None,
    since: Since = None,
    until: Until = None,
) -> UsageList:
    """Most expensive first; `day` is a UTC date."""
    wanted = RecordFilter(
        org=org,
        team=team,
        key_id=key,
        policy=policy,
        backend=backend,
        model=model,
        tier=tier,
        since=since,
        until=until,
    )
    dimensions = _dimensions(by)
    return UsageList(await context.database.read(summarize_usage, wanted, dimensions))


@post("/audit:verify", status_code=200, summary="Verify the hash chain of the decisions")
async def verify(context: Context, data: JSONBody[AuditInput]) -> AuditResult:
    """Of one organisation, or of all. `ok` is false when a decision was changed, removed or
    inserted after it was recorded."""
    if data.org is not None:
        check_text("org", data.org)
    reports = await verify_chain(context.database, data.org, context.chains)
    return AuditResult(all(r.ok for r in reports), [_report(report) for report in reports])


HANDLERS = (decisions, decision, usage, usage_summary, verify)


def _dimensions(by: str) -> list[Dimension]:
    known = {name: name for name in get_args(Dimension)}
    names = by.split(",")
    for name in names:
        if name not in known:
            raise invalid("by", f"unknown dimension {name!r}; known: {', '.join(known)}")
    if len(set(names)) != len(names):
        raise invalid("by", "a dimension is given twice")
    return [known[name] for name in names]


def _report(report: ChainReport) -> AuditReport:
    return AuditReport(
        org=report.org,
        ok=report.ok,
        rows=report.rows,
        head=report.head.hash,
        seq=report.seq,
        problem=report.problem,
        deleted=report.deleted,
    )
