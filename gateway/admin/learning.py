"""Labels, refits, and which router is active."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from litestar import Request, delete, get, post
from litestar.params import QueryParameter

from gateway.admin.context import AdminContext, Context
from gateway.admin.fields import Cursor, Limit, Name, Text, check_name
from gateway.admin.guard import ACTOR
from gateway.admin.problems import FieldError, Refusal, invalid
from gateway.changes import Change, write_change
from gateway.learning import (
    ActiveRouter,
    BadRows,
    Learning,
    LearningState,
    Proposal,
    Refit,
    forgetting,
    repository,
)
from gateway.learning.types import Label, Message, decode_conversation
from gateway.records import Database
from routers.cards import Base

MAX_ROWS_BODY = 32 << 20
MAX_PAGE_BYTES = 8 << 20
_TOPIC = "labels"
_WITH_BODY = ("content-type", "transfer-encoding")
_BAD_ROWS = "The rows cannot be used."

Before = Annotated[
    float | None,
    QueryParameter(ge=0, description="Seconds since the epoch, exclusive."),
]
Seed = Annotated[int, QueryParameter(ge=0, lt=2**31, description="Of the random numbers.")]
RowLimit = Annotated[
    int, QueryParameter(ge=1, le=20_000, description="The newest conversations, how many at most.")
]
Tier = Annotated[Base | None, QueryParameter(description="Of `model`.")]
NewName = Annotated[
    str | None, QueryParameter(max_length=63, description="Without it, one is made from the time.")
]


class LabelView(msgspec.Struct, frozen=True):
    """One label. `messages` is the conversation; `ts` is when the request was made. `local_model`
    and `frontier_model` say of whose answer the label of that side is, as `backend/model`: null
    without one, and where that is not known. `p_local_ok`, `p_frontier_ok` and `threshold` are what
    the router (`artefact`) said at the time."""

    decision_id: str
    source: str
    org: str
    ts: float
    created: float
    messages: list[Message]
    tools: list[dict[str, Any]]
    local_ok: float | None
    frontier_ok: float | None
    local_model: str | None
    frontier_model: str | None
    p_local_ok: float | None
    p_frontier_ok: float | None
    threshold: float | None
    artefact: str


class LabelPage(msgspec.Struct, frozen=True):
    items: list[LabelView]
    next_cursor: str | None


class DeletedView(msgspec.Struct, frozen=True):
    """How many rows went, conversations that had no label yet and comments included."""

    labels: int
    captures: int
    feedback: int


class DeletedRefitView(msgspec.Struct, frozen=True):
    """`vectors_in`: the refits, active or not, that still hold a copy of this one's vectors of the
    texts that it was fitted to."""

    name: str
    vectors_in: list[str]


class RefitPage(msgspec.Struct, frozen=True):
    items: list[Refit]
    next_cursor: str | None


@get("/learning", summary="What is being learnt, and which router is active")
async def state(context: Context) -> LearningState:
    return await _learning(context).state()


@get("/labels", summary="Labels, newest first")
async def labels(
    context: Context, org: Text = None, limit: Limit = 100, cursor: Cursor = None
) -> LabelPage:
    """With the text of their conversations: at most 8 MiB of it in a page, which may thus have
    fewer than `limit` labels, but one at least. The labels of one decision follow each other."""
    try:
        found, following = await context.database.read(
            repository.list_labels, org, limit, cursor, MAX_PAGE_BYTES
        )
    except ValueError as exc:
        raise invalid("cursor", "not a cursor of this list") from exc
    return LabelPage([_view(label) for label in found], following)


@delete("/labels", status_code=200, summary="Delete labels, of an organisation or before a time")
async def delete_labels(context: Context, org: Text = None, before: Before = None) -> DeletedView:
    """At least one of the two; with both, what fits both. Conversations and comments go too, and
    what has not been written yet of requests made until now."""
    if org is None and before is None:
        raise Refusal(
            400,
            "The request is not valid.",
            (FieldError("org", "give org or before: nothing else says what to delete"),),
        )
    return await _delete(context.database, org, before)


@get("/refits", summary="Refits, newest first")
async def refits(context: Context, limit: Limit = 100, cursor: Cursor = None) -> RefitPage:
    try:
        found, following = await _learning(context).refits.page(limit, cursor)
    except ValueError as exc:
        raise invalid("cursor", "not a cursor of this list") from exc
    return RefitPage(found, following)


@get("/refits/{name:str}", summary="One refit with its report")
async def refit(context: Context, name: Name) -> Refit:
    return await _learning(context).refits.get(check_name(name))


@delete("/refits/{name:str}", status_code=200, summary="Delete a refit and its files")
async def delete_refit(context: Context, name: Name) -> DeletedRefitView:
    """One that has ended and is not active, and that no running refit starts from. Its artefact
    holds a vector of each text that it was fitted to, which outlives the deletion of the labels.
    The refit of a card that started from it has a copy of them, and is named."""
    also_in = await _learning(context).refits.delete(check_name(name), ACTOR)
    return DeletedRefitView(name, also_in)


@post(
    "/refits",
    status_code=202,
    summary="Propose a refit of the active router",
    request_max_body_size=MAX_ROWS_BODY,
)
async def propose(
    context: Context,
    request: Request[Any, Any, Any],
    name: NewName = None,
    seed: Seed = 0,
    org: Text = None,
    limit: RowLimit = 5_000,
    model: Text = None,
    tier: Tier = None,
    like: Text = None,
) -> Refit:
    """On the rows of the body (JSON Lines, as `tollhouse router refit` reads them), or without a
    body on the labels collected; an empty body that came with a Content-Type is refused. With
    `model` (`backend/model`) only the card of that model is fitted, to the labels of its own
    answers; labels that do not say of whose they are count where no other model answers. `tier` or
    `like` (a listed model) say of what kind it is where its name tells nothing. Runs behind this
    answer; nothing is activated."""
    learning, rows = _learning(context), await _rows(request)
    proposal = Proposal(
        author=ACTOR,
        name=name or "",
        seed=seed,
        org=org,
        limit=limit,
        upload=rows,
        model=model or "",
        tier=tier,
        like=like or "",
        sole=learning.sole(model) if model else (),
    )
    if rows is not None and org is not None:
        raise invalid("org", "chooses among collected labels; the body has rows of its own")
    try:
        return await learning.refits.propose(proposal)
    except BadRows as exc:
        path, title, says = "body", _BAD_ROWS, str(exc)
        field, _, rest = says.partition(": ")
        if field in ("name", "model"):
            path, title, says = field, "The request is not valid.", rest
        raise Refusal(422, title, (FieldError(path, says),)) from exc


@post("/refits/{action:str}", status_code=200, summary="Activate: NAME:activate, or NAME:rollback")
async def act(context: Context, action: Name) -> ActiveRouter:
    """`NAME:activate` makes a refit, or `configured`, the router of every worker. `NAME:rollback`
    goes back to what was active before NAME."""
    activation = _learning(context).activation
    name, _, verb = action.rpartition(":")
    if verb == "rollback":
        return await activation.rollback(check_name(name), ACTOR)
    if verb != "activate":
        raise Refusal(404, "There is nothing at this address.")
    return await activation.activate(check_name(name), ACTOR)


HANDLERS = (state, labels, delete_labels, refits, refit, delete_refit, propose, act)


def _learning(context: AdminContext) -> Learning:
    if context.learning is None:
        raise Refusal(404, "Nothing learns here.")
    return context.learning


async def _rows(request: Request[Any, Any, Any]) -> bytes | None:
    """The body; None without one. A client that means to send one says of what type it is, or
    that it comes in chunks (RFC 9112, section 6), while `Content-Length: 0` goes with every POST
    that has none (RFC 9110, section 8.6). Raises Refusal for an empty one that was meant."""
    body = await request.body()
    if body:
        return body
    if not any(name in request.headers for name in _WITH_BODY):
        return None
    says = "has no rows; for the collected labels send no body, and no Content-Type either"
    raise Refusal(422, _BAD_ROWS, (FieldError("body", says),))


def _view(label: Label) -> LabelView:
    conversation = decode_conversation(label.conversation)
    shared = {
        name: getattr(label, name) for name in LabelView.__struct_fields__ if hasattr(label, name)
    }
    return LabelView(messages=conversation.messages, tools=conversation.tools, **shared)


async def _delete(database: Database, org: str | None, before: float | None) -> DeletedView:
    now = time.time()

    def change(connection: Any) -> DeletedView:
        gone = forgetting.forget(connection, org, before, now)
        what = f"org={org or '*'} before={before if before is not None else '*'}"
        counted = f"labels={gone.labels} captures={gone.captures} feedback={gone.feedback}"
        write_change(connection, _TOPIC, Change(now, ACTOR, "labels.delete", what[:128], counted))
        return DeletedView(gone.labels, gone.captures, gone.feedback)

    return await database.write(change)
