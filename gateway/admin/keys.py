"""Client keys: create, list, show, revoke."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, delete, get, post
from litestar.params import HeaderParameter, JSONBody

from gateway.admin.context import AdminContext, Context
from gateway.admin.fields import Cursor, Limit, Name, check_key_id, split_action
from gateway.admin.guard import ACTOR
from gateway.admin.problems import Refusal, invalid
from gateway.admin.views import (
    CreatedKey,
    KeyInput,
    KeyPage,
    KeyView,
    created_key,
    field_error,
    key_view,
)
from gateway.auth import KeyInfo
from gateway.auth.admin import replay_of
from gateway.auth.rules import Invalid
from gateway.policies import UnknownPolicy

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(name="Idempotency-Key", required=False, min_length=1, max_length=200),
]


@post("/keys", summary="Create a key")
async def create_key(
    context: Context, data: JSONBody[KeyInput], idempotency_key: IdempotencyKey = None
) -> Response[CreatedKey]:
    """The key is in the answer and nowhere else. With an Idempotency-Key, a repeated request
    within a day gives the same key's data with `key` null, status 200 and
    `Idempotency-Replayed: true`; a different request under the same Idempotency-Key gives 422."""
    now = context.keyring.clock()
    spec = data.spec(now)
    _check_policy(context, spec.policy)
    try:
        made = await context.keys.create(
            spec, ACTOR, replay_of(idempotency_key, data) if idempotency_key else None
        )
    except Invalid as exc:
        raise Refusal(400, "The request is not valid.", (field_error(exc),)) from exc
    fresh = made.key is not None
    return Response(
        created_key(made.info, now, made.key),
        status_code=201 if fresh else 200,
        headers={} if fresh else {"idempotency-replayed": "true"},
    )


@get("/keys", summary="The keys, without their secrets")
async def list_keys(context: Context, limit: Limit = 100, cursor: Cursor = None) -> KeyPage:
    infos, following = await key_page(context, limit, cursor)
    now = context.keyring.clock()
    return KeyPage([key_view(info, now) for info in infos], following)


@get("/keys/{key_id:str}", summary="One key, without its secret")
async def get_key(context: Context, key_id: Name) -> KeyView:
    info = await context.keys.get(check_key_id(key_id))
    return key_view(info, context.keyring.clock())


@delete("/keys/{key_id:str}", status_code=200, summary="Revoke a key")
async def delete_key(context: Context, key_id: Name) -> KeyView:
    return await _revoke(context, key_id)


@post("/keys/{action:str}", status_code=200, summary="Revoke a key: ID:revoke")
async def revoke_key(context: Context, action: Name) -> KeyView:
    return await _revoke(context, split_action(action, "revoke"))


HANDLERS = (create_key, list_keys, get_key, delete_key, revoke_key)


async def key_page(
    context: AdminContext, limit: int, cursor: str | None
) -> tuple[list[KeyInfo], str | None]:
    """A page and the cursor of the next one. Raises Refusal."""
    if cursor is not None:
        check_cursor(cursor)
    infos = await context.keys.page(cursor or "", limit + 1)
    more = len(infos) > limit
    infos = infos[:limit]
    return infos, infos[-1].id if more else None


def check_cursor(cursor: str) -> None:
    try:
        check_key_id(cursor)
    except Refusal as exc:
        raise invalid("cursor", "not a cursor of this list") from exc


async def _revoke(context: AdminContext, key_id: str) -> KeyView:
    info = await context.keys.revoke(check_key_id(key_id), ACTOR)
    return key_view(info, context.keyring.clock())


def _check_policy(context: AdminContext, name: str) -> None:
    if not name:
        return
    try:
        context.policies.get(name)
    except UnknownPolicy as exc:
        raise invalid("policy", str(exc)) from exc
