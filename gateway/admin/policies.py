"""Policies: read, write with a precondition, validate, activate, roll back, history."""

from __future__ import annotations

from litestar import Response, get, post, put
from litestar.params import FromPath, JSONBody

from gateway.admin.context import Context
from gateway.admin.fields import IfMatch, IfNoneMatch, Name, check_name, split_action
from gateway.admin.guard import ACTOR
from gateway.admin.problems import FieldError, invalid
from gateway.admin.views import (
    PolicyDocument,
    PolicyInput,
    PolicyLine,
    PolicyList,
    PolicyView,
    RevisionList,
    Validation,
    policy_view,
    revision_view,
)
from gateway.config import ConfigError
from gateway.policies import PolicyVersion, Write

MAX_COMMENT = 500


@get("/policies", summary="The active policies")
async def list_policies(context: Context) -> PolicyList:
    policies = context.policies
    lines = [
        PolicyLine(p.name, p.version, p.etag, p.name == policies.default) for p in policies.active()
    ]
    return PolicyList("file" if policies.source == "file" else "database", lines)


@get("/policies/{name:str}", summary="The active version of a policy")
async def get_policy(context: Context, name: Name) -> Response[PolicyView]:
    return _tagged(context.policies.get(check_name(name)), True)


@put("/policies/{name:str}", summary="Store a new version, and activate it")
async def put_policy(
    context: Context,
    name: Name,
    data: JSONBody[PolicyInput],
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response[PolicyView]:
    """Needs If-Match with the ETag of the active version (428 without, 412 when another one is
    active), or If-None-Match: * for a new policy."""
    comment = _comment(data.comment)
    write = Write(ACTOR, comment, if_match, if_none_match, data.activate)
    made = await context.policies.put(check_name(name), data.policy, write)
    return _tagged(made, data.activate)


@post("/policies:validate", status_code=200, summary="Check a policy document")
async def validate_policy(context: Context, data: JSONBody[PolicyDocument]) -> Validation:
    try:
        context.policies.validate(data.policy)
    except ConfigError as exc:
        return Validation(False, (FieldError(exc.path, exc.message),))
    return Validation(True)


@get("/policies/{name:str}/versions", summary="Every version of a policy, newest first")
async def policy_history(context: Context, name: Name) -> RevisionList:
    revisions = await context.policies.history(check_name(name))
    return RevisionList([revision_view(revision) for revision in revisions])


@get("/policies/{name:str}/versions/{version:int}", summary="One version of a policy")
async def get_version(context: Context, name: Name, version: FromPath[int]) -> Response[PolicyView]:
    found = await context.policies.version(check_name(name), _version(str(version)))
    active = any(p.etag == found.etag and p.name == name for p in context.policies.active())
    return _tagged(found, active)


@post(
    "/policies/{name:str}/versions/{action:str}",
    status_code=200,
    summary="Activate a version: VERSION:activate",
)
async def activate_version(
    context: Context, name: Name, action: Name, if_match: IfMatch = None
) -> Response[PolicyView]:
    version = _version(split_action(action, "activate"))
    write = Write(ACTOR, if_match=if_match)
    return _tagged(await context.policies.activate(check_name(name), version, write), True)


@post(
    "/policies/{action:str}",
    status_code=200,
    summary="Go back to the version before: NAME:rollback",
)
async def rollback_policy(
    context: Context, action: Name, if_match: IfMatch = None
) -> Response[PolicyView]:
    name = check_name(split_action(action, "rollback"))
    write = Write(ACTOR, if_match=if_match)
    return _tagged(await context.policies.rollback(name, write), True)


HANDLERS = (
    list_policies,
    get_policy,
    put_policy,
    validate_policy,
    policy_history,
    get_version,
    activate_version,
    rollback_policy,
)


def _tagged(found: PolicyVersion, active: bool) -> Response[PolicyView]:
    return Response(policy_view(found, active), headers={"etag": found.etag})


def _comment(text: str) -> str:
    # PostgreSQL refuses a NUL in text.
    if len(text) > MAX_COMMENT or "\0" in text:
        raise invalid("comment", f"at most {MAX_COMMENT} characters, and no NUL")
    return text


def _version(text: str) -> int:
    # SQL integers have an end; two thousand million are more versions than there will ever be.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 2**31):
        raise invalid("version", "must be a number below 2**31")
    return int(text)
