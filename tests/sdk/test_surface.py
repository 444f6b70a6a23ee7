"""Health, metrics, OpenAPI and its page, as they are served."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import PLAIN

_METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
_PLACES = {"query", "header", "path", "cookie"}
_COMPONENT = re.compile(r"[a-zA-Z0-9._-]+")


def test_live_without_a_key(http: httpx.Client) -> None:
    reply = http.get("/livez", headers={"authorization": ""})
    assert (reply.status_code, reply.text) == (200, "ok")


@pytest.mark.parametrize("path", ["/readyz", "/health"])
def test_ready(http: httpx.Client, path: str) -> None:
    short = http.get(path, headers={"authorization": ""})
    assert (short.status_code, short.json()) == (200, {"ready": True})
    told = http.get(f"{path}?verbose").json()
    assert told["ready"] is True
    assert told["store"]["ok"] is True
    assert told["router"]
    assert {"name": "engine", "tier": "local", "healthy": True} in told["backends"]
    # Reported, not fatal: the label is not mandatory.
    assert told["labels"] == {"secret": []}


def test_metrics(http: httpx.Client) -> None:
    body = {"model": "engine/tiny", "messages": [{"role": "user", "content": "Hello, secretly"}]}
    assert http.post("/v1/chat/completions", json=body).status_code == 200
    reply = http.get("/metrics", headers={"authorization": ""})
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(reply.text)}
    assert families["tollhouse_requests"].samples
    up = {s.labels["tollhouse_backend"]: s.value for s in families["tollhouse_backend_up"].samples}
    assert up["engine"] == 1
    assert "secretly" not in reply.text


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item)


def _resolve(spec: dict[str, Any], reference: str) -> Any:
    assert reference.startswith("#/"), reference
    found: Any = spec
    for part in reference[2:].split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


@pytest.fixture(scope="module")
def spec(tollhouse: Any) -> Any:
    return httpx.get(f"{tollhouse.url}/openapi.json", **PLAIN).json()


def test_openapi_names_the_whole_surface(spec: Any) -> None:
    assert spec["openapi"].startswith("3.1")
    assert {"title", "version"} <= set(spec["info"])
    paths = set(spec["paths"])
    assert {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models"} <= paths
    assert "/v1/models/{model}" in paths
    assert {"/livez", "/readyz", "/metrics"} <= paths
    assert any(path.startswith("/admin/v1/") for path in paths)


def test_openapi_operations_are_well_formed(spec: Any) -> None:
    ids = []
    for path, item in spec["paths"].items():
        assert path.startswith("/")
        for method in _METHODS & set(item):
            operation = item[method]
            ids += [operation["operationId"]] if "operationId" in operation else []
            assert operation["responses"]
            for code, answer in operation["responses"].items():
                assert re.fullmatch(r"[1-5](\d\d|XX)|default", code)
                assert "$ref" in answer or isinstance(answer["description"], str)
            parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
            for parameter in parameters:
                assert parameter["in"] in _PLACES
                assert ("schema" in parameter) != ("content" in parameter)
            named = {p["name"] for p in parameters if p["in"] == "path" and p["required"] is True}
            assert named == set(re.findall(r"\{(\w+)\}", path)), path
            places = [(p["name"].lower(), p["in"]) for p in parameters]
            assert len(places) == len(set(places))
            if "requestBody" in operation:
                assert operation["requestBody"]["content"]
    assert len(ids) == len(set(ids))


def test_openapi_references_resolve(spec: Any) -> None:
    references = [each["$ref"] for each in _walk(spec) if isinstance(each.get("$ref"), str)]
    assert references
    for reference in references:
        assert isinstance(_resolve(spec, reference), dict)
    for group in spec["components"].values():
        assert all(_COMPONENT.fullmatch(name) for name in group)
    schemes = set(spec["components"]["securitySchemes"])
    for each in _walk(spec["paths"]):
        for requirement in each.get("security", []):
            assert set(requirement) <= schemes


def test_the_docs_page_loads_nothing_from_elsewhere(http: httpx.Client) -> None:
    reply = http.get("/docs", headers={"authorization": ""})
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    text = reply.text
    assert "/v1/chat/completions" in text
    assert "<script" not in text
    assert not re.search(r"(?:src|href|action)\s*=\s*[\"']?\s*(?:[a-z]+:)?//", text, re.I)
    assert not re.search(r"url\(|@import", text)
