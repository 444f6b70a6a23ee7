"""Deleting cached answers."""

from __future__ import annotations

import time

import sqlalchemy as sa
from litestar import post
from litestar.params import JSONBody

from gateway.admin.context import Context
from gateway.admin.fields import check_org
from gateway.admin.guard import ACTOR
from gateway.admin.problems import FieldError, Refusal
from gateway.admin.views import Invalidated, InvalidateInput
from gateway.changes import Change, write_change
from gateway.records import Database

_TOPIC = "cache"


@post("/cache:invalidate", status_code=200, summary="Delete cached answers")
async def invalidate(context: Context, data: JSONBody[InvalidateInput]) -> Invalidated:
    """Of one organisation, or of all. Answers of requests made until now are not cached later
    either, whichever worker gives them. Where it fails half way, ask again."""
    if (data.org is None) is not data.all:
        raise Refusal(
            400,
            "The request is not valid.",
            (FieldError("org", "give org, or all as true: one of the two"),),
        )
    org = None if data.org is None else check_org(data.org)
    # Before anything goes: nothing is deleted that is not written down.
    await _note(context.database, org, "begun")
    gone = await context.ledger.forget(org)
    rewritten = None if context.rewrite is None else await context.rewrite()
    await _note(context.database, org, f"answers={gone} file_rewritten={rewritten}")
    return Invalidated(gone, rewritten)


HANDLERS = (invalidate,)


async def _note(database: Database, org: str | None, what: str) -> None:
    target = f"org={org or '*'}"[:128]

    def write(connection: sa.Connection) -> None:
        change = Change(time.time(), ACTOR, "cache.invalidate", target, after=what)
        write_change(connection, _TOPIC, change)

    await database.write(write)
