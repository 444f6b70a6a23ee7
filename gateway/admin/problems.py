"""Errors of the admin API as problem documents (RFC 9457), and the table that makes them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from gateway.auth import (
    AuthUnavailable,
    KeyNotFound,
    KeyReadOnly,
    ReplayConflict,
    TermsUnreadable,
)
from gateway.config import ConfigError
from gateway.learning import (
    BadRows,
    NoBase,
    RefitBusy,
    RefitNotReady,
    RefitTaken,
    UnknownRefit,
)
from gateway.learning import NothingToRollBack as NoRouterBefore
from gateway.policies import (
    NothingToRollBack,
    PoliciesUnavailable,
    PolicyReadOnly,
    PolicyStale,
    PreconditionMissing,
    UnknownPolicy,
)
from gateway.records import RecordsError, RecordsRejected
from gateway.store import StoreError

log = logging.getLogger("tollhouse.admin")

MEDIA_TYPE = "application/problem+json"


class FieldError(msgspec.Struct, frozen=True):
    """`path` names the place in the body, the query parameter or the header."""

    path: str
    message: str


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457. `type` is `about:blank`: the status says what kind of problem it is."""

    status: int
    title: str
    detail: str
    type: str = "about:blank"
    errors: tuple[FieldError, ...] = ()


class Refusal(Exception):
    """Raised by handlers: a status, what was wrong, and where."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: tuple[FieldError, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.errors = errors
        self.headers = headers


def invalid(path: str, message: str) -> Refusal:
    """A field, parameter or header that cannot be accepted."""
    return Refusal(400, "The request is not valid.", (FieldError(path, message),))


AnyRequest = Request[Any, Any, Any]

_STATUS: dict[type[Exception], int] = {
    KeyNotFound: 404,
    UnknownPolicy: 404,
    UnknownRefit: 404,
    NoBase: 409,
    NoRouterBefore: 409,
    RefitBusy: 409,
    RefitNotReady: 409,
    RefitTaken: 409,
    BadRows: 422,
    KeyReadOnly: 409,
    PolicyReadOnly: 409,
    TermsUnreadable: 409,
    NothingToRollBack: 409,
    PolicyStale: 412,
    ReplayConflict: 422,
    PreconditionMissing: 428,
    AuthUnavailable: 503,
    PoliciesUnavailable: 503,
    RecordsRejected: 422,
    RecordsError: 503,
    StoreError: 503,
}


def problem(
    status: int,
    detail: str,
    errors: tuple[FieldError, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Response[Problem]:
    body = Problem(status, HTTPStatus(status).phrase, detail, errors=errors)
    return Response(
        body,
        status_code=status,
        media_type=MEDIA_TYPE,
        headers={"cache-control": "no-store", **(headers or {})},
    )


def problem_handler(request: AnyRequest, exc: Exception) -> Response[Problem]:
    """Every exception below /admin becomes a problem document. Also for the application's own
    404 and 405 there, which arise before a route is found."""
    if isinstance(exc, Refusal):
        return problem(exc.status, str(exc), exc.errors, exc.headers)
    if isinstance(exc, HTTPException):
        return _from_framework(exc)
    if isinstance(exc, ConfigError):
        errors = (FieldError(exc.path, exc.message),)
        return problem(422, "The document is not valid.", errors)
    for kind, status in _STATUS.items():
        if isinstance(exc, kind):
            return _from_table(request, exc, status)
    log.error("admin request failed: %s %s", request.method, request.scope["path"], exc_info=exc)
    return problem(500, "The gateway failed to answer this; its log says why.")


def _from_table(request: AnyRequest, exc: Exception, status: int) -> Response[Problem]:
    if isinstance(exc, RecordsError | StoreError):
        # The text of a driver may hold addresses and statements: it belongs in the log.
        log.error(
            "admin request failed: %s %s", request.method, request.scope["path"], exc_info=exc
        )
        if isinstance(exc, RecordsRejected):
            return problem(status, "The database refuses this; the gateway's log says why.")
        what = "database" if isinstance(exc, RecordsError) else "store"
        return problem(status, f"The {what} does not answer.", headers={"retry-after": "1"})
    headers = {"retry-after": "1"} if status == 503 else {}
    if isinstance(exc, PolicyStale) and exc.etag:
        headers["etag"] = exc.etag
    return problem(status, str(exc), headers=headers)


def _from_framework(exc: HTTPException) -> Response[Problem]:
    errors = tuple(
        FieldError(_path(item), _message(item))
        for item in (exc.extra if isinstance(exc.extra, list) else ())
        if isinstance(item, dict)
    )
    detail = "The request is not valid." if exc.status_code == 400 else exc.detail
    if exc.status_code == 400 and not errors:
        # A body that is not JSON at all: Litestar says why in the detail.
        errors = (FieldError("body", exc.detail.partition(": ")[2] or exc.detail),)
    headers = {k: v for k, v in (exc.headers or {}).items() if k.lower() == "allow"}
    return problem(exc.status_code, detail or HTTPStatus(exc.status_code).phrase, errors, headers)


def _path(item: dict[str, Any]) -> str:
    key = str(item.get("key", ""))
    if item.get("source") == "body":
        return key.removeprefix("data.") if key != "data" else "body"
    return key or str(item.get("source", ""))


def _message(item: dict[str, Any]) -> str:
    message = str(item.get("message", "not valid"))
    # Of a body that is not there, Litestar says only how its handlers call it.
    return "a JSON body is needed" if message == "'data'" else message


Handler = Callable[[AnyRequest, Exception], Response[Problem]]
EXCEPTION_HANDLERS: dict[type[Exception] | int, Handler] = {Exception: problem_handler}
