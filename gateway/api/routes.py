"""Routes of /v1 and of operations, but for the hot ones: see `gateway.app.Front`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, get, post
from litestar.handlers import asgi
from litestar.response import Response
from litestar.types import Receive, Scope, Send

from backends.base import Operation
from gateway.api import docs, health
from gateway.errors import GatewayError, model_not_found
from gateway.inbound import new_id, read_controls
from gateway.learning.feedback import MAX_BODY, parse_feedback
from gateway.telemetry import MEDIA_TYPE

if TYPE_CHECKING:
    from gateway.app import Worker

OPERATIONS: dict[str, Operation] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
}


def handlers(worker: Worker) -> list[Any]:
    """Every handler of this package, bound to one worker."""
    hot = [_wrong_method(path) for path in OPERATIONS]
    return [
        *hot,
        *_models(worker),
        *_feedback(worker),
        *_operations(worker),
        *docs.handlers(),
    ]


def _wrong_method(path: str) -> Any:
    """POST never gets here: `gateway.app.Front` takes it to the pipeline."""

    @asgi(path, copy_scope=False)
    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        error = GatewayError(405, "method_not_allowed", "Use POST.")
        await respond(send, error, new_id("req_"), [(b"allow", b"POST")])

    return handler


async def respond(
    send: Any, error: GatewayError, request_id: str, extra: list[tuple[bytes, bytes]]
) -> None:
    body = error.body()
    headers = [
        *error.headers(),
        *extra,
        (b"x-request-id", request_id.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _models(worker: Worker) -> list[Any]:
    async def rows(request: Request[Any, Any, Any]) -> list[dict[str, Any]]:
        from gateway.admission import authenticate

        await authenticate(worker.runtime, read_controls(request.scope["headers"]))
        catalog = worker.runtime.catalog.models()
        policies = [
            {
                "id": f"auto:{active.name}",
                "object": "model",
                "created": 0,
                "owned_by": "tollhouse",
                "tollhouse": {"policy": active.name, "policy_version": active.version},
            }
            for active in worker.runtime.policies.active()
        ]
        return [catalog[0], *policies, *catalog[1:]]

    @get("/v1/models", include_in_schema=False)
    async def models(request: Request[Any, Any, Any]) -> Response[bytes]:
        return _json({"object": "list", "data": await rows(request)})

    @get("/v1/models/{name:path}", include_in_schema=False)
    async def model(request: Request[Any, Any, Any], name: str) -> Response[bytes]:
        wanted = name.removeprefix("/")
        for row in await rows(request):
            if row["id"] == wanted:
                return _json(row)
        raise model_not_found(wanted)

    return [models, model]


def _feedback(worker: Worker) -> list[Any]:
    @post("/v1/feedback", include_in_schema=False, status_code=200, request_max_body_size=MAX_BODY)
    async def feedback(request: Request[Any, Any, Any]) -> Response[bytes]:
        from gateway.admission import authenticate

        principal = await authenticate(worker.runtime, read_controls(request.scope["headers"]))
        given = parse_feedback(await request.body())
        return _json(await worker.runtime.learning.feedback.give(principal, given))

    return [feedback]


def _operations(worker: Worker) -> list[Any]:
    @get("/livez", include_in_schema=False)
    async def livez() -> Response[bytes]:
        return Response(b"ok", media_type="text/plain")

    @get(["/readyz", "/health"], include_in_schema=False)
    async def readyz(request: Request[Any, Any, Any]) -> Response[bytes]:
        report = await health.readiness(worker)
        verbose = "verbose" in request.query_params
        shown = report if verbose else {"ready": report["ready"]}
        return _json(shown, 200 if report["ready"] else 503)

    @get("/metrics", include_in_schema=False)
    async def metrics() -> Response[bytes]:
        text = await worker.exposition()
        return Response(text, media_type=MEDIA_TYPE)

    return [livez, readyz, metrics]


def _json(value: Any, status: int = 200) -> Response[bytes]:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")
