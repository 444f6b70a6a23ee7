"""OpenAPI of /v1 and its documentation page. Nothing is loaded from elsewhere: an air-gapped
installation must be able to open it."""

from __future__ import annotations

import html
from typing import Any

from litestar import Request, get
from litestar.response import Response

_ERRORS = {
    "400": "a field is wrong; `param` names it",
    "401": "no, unknown or revoked key",
    "402": "the budget allows no backend",
    "403": "no backend is allowed for the labels, or the key may not use this",
    "404": "unknown model",
    "413": "body too large",
    "429": "a limit is reached; `Retry-After` in seconds",
    "502": "the upstream failed",
    "503": "overloaded, or a dependency is down",
    "504": "the upstream or the deadline timed out",
}
_REQUEST_HEADERS = {
    "x-tollhouse-residency": "up to 64 labels, comma separated; may only tighten",
    "x-tollhouse-policy": "name of the policy to decide by",
    "x-tollhouse-max-cost": "most this request may cost, in USD",
    "x-tollhouse-cache": "no-cache, no-store or max-age=SECONDS; Cache-Control works as well",
    "x-tollhouse-tags": "up to 16 tags, comma separated",
}


_ERROR_BODY = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}


def _errors(*codes: str) -> dict[str, Any]:
    return {code: {"description": _ERRORS[code], "content": _ERROR_BODY} for code in codes}


def _post(summary: str, required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": True,
    }
    responses = _errors(*_ERRORS)
    responses["200"] = {
        "description": "the answer, as JSON or as an event stream",
        "content": {"application/json": {}, "text/event-stream": {}},
    }
    return {
        "post": {
            "summary": summary,
            "tags": ["v1"],
            "security": [{"bearer": []}],
            "parameters": [
                {"name": n, "in": "header", "description": d, "schema": {"type": "string"}}
                for n, d in _REQUEST_HEADERS.items()
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": responses,
        }
    }


def _get(summary: str, answer: str, kind: str = "application/json") -> dict[str, Any]:
    """An operation that needs no key."""
    responses: dict[str, Any] = {"200": {"description": answer, "content": {kind: {}}}}
    return {"summary": summary, "tags": ["operations"], "responses": responses}


def _ready(summary: str) -> dict[str, Any]:
    operation = _get(summary, "ready")
    operation["responses"]["503"] = {
        "description": "not ready",
        "content": {"application/json": {}},
    }
    operation["parameters"] = [
        {
            "name": "verbose",
            "in": "query",
            "description": "with the store, the router, backends and labels",
            "allowEmptyValue": True,
            "schema": {"type": "string"},
        }
    ]
    return {"get": operation}


_MODEL = {"type": "string", "description": "auto, auto:POLICY, an alias, or BACKEND/MODEL"}
_FEEDBACK = {
    "type": "object",
    "required": ["outcome"],
    "anyOf": [{"required": ["decision_id"]}, {"required": ["request_id"]}],
    "additionalProperties": False,
    "properties": {
        "decision_id": {"type": "string", "description": "x-tollhouse-decision-id of the answer"},
        "request_id": {"type": "string", "description": "x-request-id of the answer"},
        "outcome": {
            "anyOf": [
                {"type": "string", "enum": ["good", "bad"]},
                {"type": "number", "minimum": 0, "maximum": 1},
            ]
        },
        "comment": {"type": "string", "maxLength": 500},
    },
}
PATHS: dict[str, Any] = {
    "/v1/chat/completions": _post(
        "Chat completion, streamed or whole",
        ["model", "messages"],
        {
            "model": _MODEL,
            "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
            "stream": {"type": "boolean"},
            "tools": {"type": "array", "items": {"type": "object"}},
            "response_format": {"type": "object"},
            "max_completion_tokens": {"type": "integer", "minimum": 1},
        },
    ),
    "/v1/completions": _post(
        "Text completion, streamed or whole",
        ["model", "prompt"],
        {"model": _MODEL, "prompt": {}, "stream": {"type": "boolean"}},
    ),
    "/v1/embeddings": _post("Embeddings", ["model", "input"], {"model": _MODEL, "input": {}}),
    "/v1/feedback": {
        "post": {
            "summary": "Say how good an answer was",
            "tags": ["v1"],
            "security": [{"bearer": []}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _FEEDBACK}},
            },
            "responses": {
                "200": {
                    "description": "stored; `usable` and `reason` say whether a training row came "
                    "of it, `replaced` whether this key had said something before",
                    "content": {"application/json": {}},
                },
                **_errors("400", "401", "413", "429", "503"),
                "404": {
                    "description": "no decision of this organisation has the id",
                    "content": _ERROR_BODY,
                },
            },
        }
    },
    "/v1/models": {
        "get": {
            "summary": "Aliases, policies and the models of every backend",
            "tags": ["v1"],
            "security": [{"bearer": []}],
            "responses": {
                "200": {
                    "description": "a list of models with tier and jurisdiction",
                    "content": {"application/json": {}},
                },
                **_errors("401", "503"),
            },
        }
    },
    "/v1/models/{model}": {
        "get": {
            "summary": "One of them",
            "tags": ["v1"],
            "security": [{"bearer": []}],
            "parameters": [
                {
                    "name": "model",
                    "in": "path",
                    "required": True,
                    "description": "may hold slashes, as in BACKEND/MODEL",
                    "schema": {"type": "string"},
                }
            ],
            "responses": {
                "200": {"description": "the model", "content": {"application/json": {}}},
                **_errors("401", "404", "503"),
            },
        }
    },
    "/livez": {"get": _get("Is the process alive", "ok", "text/plain")},
    "/readyz": _ready("May it be sent requests"),
    "/health": _ready("The same"),
    "/metrics": {"get": _get("Metrics of all workers", "Prometheus text", "text/plain")},
}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def document(app_schema: dict[str, Any]) -> dict[str, Any]:
    """The framework's document of the admin API with /v1 put in front."""
    merged = dict(app_schema)
    merged["paths"] = {**PATHS, **app_schema.get("paths", {})}
    components = dict(app_schema.get("components", {}))
    components["schemas"] = {**components.get("schemas", {}), "Error": _ERROR_SCHEMA}
    components["securitySchemes"] = {
        **components.get("securitySchemes", {}),
        "bearer": {"type": "http", "scheme": "bearer", "description": "a client key, th-..."},
        "adminToken": {"type": "http", "scheme": "bearer", "description": "the admin token"},
    }
    merged["components"] = components
    return merged


def page(spec: dict[str, Any]) -> str:
    """The document as one page of HTML without scripts."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Tollhouse API</title><style>",
        "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}",
        "code{background:#8882;padding:.1em .3em}td{vertical-align:top;padding-right:1rem}",
        "summary{cursor:pointer}:root{color-scheme:light dark}</style>",
        "<h1>Tollhouse API</h1><p>The machine-readable document is at ",
        "<a href=/openapi.json>/openapi.json</a>.</p>",
    ]
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            if isinstance(operation, dict) and "responses" in operation:
                parts.append(_operation(path, method, operation))
    return "".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{html.escape(p['name'])}</code><td>{html.escape(p['in'])}"
        f"<td>{html.escape(p.get('description') or '')}"
        for p in operation.get("parameters", [])
        if "name" in p
    ]
    answers = [
        f"<tr><td><code>{html.escape(str(code))}</code><td>"
        f"{html.escape(answer.get('description') or '')}"
        for code, answer in sorted(operation["responses"].items())
    ]
    return (
        f"<details><summary><code>{method.upper()} {html.escape(path)}</code> "
        f"{html.escape(operation.get('summary') or '')}</summary>"
        f"<table>{''.join(rows)}</table><table>{''.join(answers)}</table></details>"
    )


def handlers() -> list[Any]:
    def merged(request: Request[Any, Any, Any]) -> dict[str, Any]:
        return document(request.app.openapi_schema.to_schema())

    @get("/openapi.json", include_in_schema=False, sync_to_thread=False)
    def openapi(request: Request[Any, Any, Any]) -> dict[str, Any]:
        return merged(request)

    @get("/docs", include_in_schema=False, sync_to_thread=False)
    def docs(request: Request[Any, Any, Any]) -> Response[str]:
        return Response(
            page(merged(request)),
            media_type="text/html",
            headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    return [openapi, docs]
