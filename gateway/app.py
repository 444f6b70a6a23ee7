"""The ASGI application of one worker."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from litestar import Litestar, Request
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.response import Response
from litestar.types import Receive, Send

from gateway.api.routes import OPERATIONS, handlers
from gateway.compose import Composition, Resolved, compose
from gateway.errors import GatewayError
from gateway.inbound import new_id
from gateway.metrics import exposition, publisher, register_gauges
from gateway.pipeline import Pipeline
from gateway.runtime import Runtime
from gateway.store import StoreError

log = logging.getLogger("tollhouse")


class Worker:
    """What the handlers of one worker reach. Filled while the application starts."""

    def __init__(self) -> None:
        self._composition: Composition | None = None
        self._pipeline: Pipeline | None = None
        self.draining = False
        self._lag = 0
        self._asked = False

    @property
    def runtime(self) -> Runtime:
        assert self._composition is not None, "the application has not started"
        return self._composition.runtime

    @property
    def pipeline(self) -> Pipeline:
        assert self._pipeline is not None, "the application has not started"
        return self._pipeline

    async def exposition(self) -> bytes:
        assert self._composition is not None, "the application has not started"
        with suppress(StoreError):
            # While the store is gone, the last known lag is shown.
            self._lag = (await self._composition.drainer.lag()).entries
        self._asked = True
        own = self.runtime.telemetry.exposition()
        self._asked = False
        return await exposition(self.runtime, own)

    def _outbox_lag(self) -> list[tuple[tuple[str, ...], float]]:
        """It is that of all workers, so only the one that is asked tells it: what another one has
        published would be what it knew when it was asked itself."""
        return [((), self._lag)] if self._asked else []

    @asynccontextmanager
    async def lifespan(self, _: Litestar, resolved: Resolved) -> AsyncIterator[None]:
        composition = compose(resolved)
        self._composition = composition
        try:
            await self._start(composition)
            yield
        finally:
            self.draining = True
            if self._pipeline is not None:
                await self._pipeline.settler.drain()
            await composition.aclose()

    async def _start(self, composition: Composition) -> None:
        try:
            await composition.start()
            self._pipeline = Pipeline(composition.runtime)
            register_gauges(self.runtime, self._pipeline, self._outbox_lag)
            composition.spawn(self._pipeline.settler.renew(self.runtime.config.store.lease))
            await self.runtime.telemetry.start(publisher(self.runtime))
            settle_memory()
        except Exception as exc:
            # The process ends with it, whatever it is: one line says so beside the server's trace.
            log.error("the gateway cannot start: %s: %s", type(exc).__name__, exc)
            raise


class Front:
    """The ASGI application: requests of the hot routes go straight to the pipeline, everything
    else (other methods on these paths too) through the framework."""

    def __init__(self, worker: Worker, app: Litestar) -> None:
        self._worker = worker
        self._app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            path = scope["path"]
            operation = OPERATIONS.get(path) or OPERATIONS.get(path.removesuffix("/"))
            if operation is not None:
                await self._worker.pipeline.serve(operation, scope, receive, send)
                return
        await self._app(scope, receive, send)


def settle_memory() -> None:
    """What was made at the start lives as long as the process: take it out of the collector's
    sight, and let it look less often. A request leaves few cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def create_app(document: bytes) -> Front:
    """The application for one worker. `document` is an encoded `Resolved`: it comes from the
    parent process, where configuration is read and embedded servers are started."""
    from gateway.admin import COMPONENTS, admin_router
    from gateway.explain import explainer

    resolved = msgspec.json.decode(document, type=Resolved)
    worker = Worker()

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with worker.lifespan(app, resolved):
            yield

    admin = admin_router(
        lambda: worker.runtime, explainer(worker), admin_token=resolved.config.admin.token
    )
    app = Litestar(
        route_handlers=[*handlers(worker), admin],
        lifespan=[lifespan],
        exception_handlers={
            GatewayError: _gateway_error,
            HTTPException: _framework_error,
            Exception: _defect,
        },
        openapi_config=OpenAPIConfig(
            title="Tollhouse",
            version=_version(),
            components=COMPONENTS,
            render_plugins=(),
            enabled_endpoints=set(),
        ),
        request_max_body_size=1 << 20,
        logging_config=None,
    )
    return Front(worker, app)


def _version() -> str:
    from importlib.metadata import version

    return version("tollhouse")


def _gateway_error(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    assert isinstance(error, GatewayError)
    headers = {k.decode(): v.decode() for k, v in error.headers()}
    headers["x-request-id"] = new_id("req_")
    return Response(error.body(), status_code=error.status, headers=headers)


_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


def _framework_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """404, 405, 413 and the like in the form that the clients of the path read."""
    from gateway.admin import PATH, problem_handler

    if request.scope["path"].startswith(PATH.rsplit("/", 1)[0]):
        return problem_handler(request, error)
    assert isinstance(error, HTTPException)
    status = error.status_code
    message = error.detail
    if status == 404:
        path = request.scope["path"]
        meant = f"/v1{path}"
        hint = f"; did you mean {meant[:200]}?" if _is_served(request.app, meant) else "."
        message = f"There is no {path[:200]}{hint}"
    shown = GatewayError(status, _CODES.get(status, "invalid_request"), message)
    response = _gateway_error(request, shown)
    if error.headers and "allow" in {k.lower() for k in error.headers}:
        response.headers["allow"] = next(
            v for k, v in error.headers.items() if k.lower() == "allow"
        )
    return response


def _is_served(app: Litestar, path: str) -> bool:
    """Whether a route has this path, with any method. Of what follows a parameter nothing is asked:
    the ones of /v1 end with theirs."""
    for route in app.routes:
        fixed, parameter, _ = route.path.partition("{")
        if path == fixed or (parameter and path.startswith(fixed)):
            return True
    return False


def _defect(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
    shown = GatewayError(
        500, "internal_error", "The gateway failed to serve this request.", type="api_error"
    )
    return _gateway_error(request, shown)
