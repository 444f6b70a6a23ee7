"""Who gets in, and what odd addresses do."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest

from tests.support import PLAIN

PATHS = [
    ("GET", "/policies"),
    ("GET", "/policies/default"),
    ("PUT", "/policies/default"),
    ("POST", "/policies:validate"),
    ("POST", "/policies/default:rollback"),
    ("GET", "/policies/default/versions"),
    ("POST", "/policies/default/versions/1:activate"),
    ("GET", "/keys"),
    ("POST", "/keys"),
    ("GET", "/keys/configconfig"),
    ("DELETE", "/keys/configconfig"),
    ("GET", "/budgets"),
    ("POST", "/cache:invalidate"),
    ("PUT", "/budgets/team:red"),
    ("GET", "/backends"),
    ("GET", "/routing"),
    ("GET", "/decisions"),
    ("GET", "/decisions/dec_1"),
    ("GET", "/usage"),
    ("GET", "/usage:summary"),
    ("GET", "/changes"),
    ("POST", "/audit:verify"),
    ("POST", "/explain"),
    ("GET", "/learning"),
    ("GET", "/labels"),
    ("DELETE", "/labels"),
    ("GET", "/refits"),
    ("POST", "/refits"),
    ("GET", "/refits/name"),
    ("DELETE", "/refits/name"),
    ("POST", "/refits/name:activate"),
]


def is_problem(reply: httpx.Response, status: int) -> bool:
    body = reply.json()
    return (
        reply.status_code == status
        and reply.headers["content-type"] == "application/problem+json"
        and body["status"] == status
        and bool(body["title"])
        and bool(body["detail"])
    )


def test_nothing_opens_without_the_token(gateway: Any, token: str) -> None:
    headers = [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": f"Basic {token}"},
        {"authorization": token},
        {"authorization": f"Bearer {token}x"},
        {"authorization": f"Bearer {token[:-1]}"},
        {"x-api-key": token},
        {"authorization": "Bearer th-configconfig-" + "c" * 43},
        {"authorization": "Bearer wrong", "host": "localhost", "x-forwarded-host": "admin"},
    ]
    with httpx.Client(base_url=f"{gateway.url}/admin/v1", **PLAIN) as client:
        for method, path in PATHS:
            reply = client.request(method, path, json={})
            assert is_problem(reply, 401), (method, path, reply.text)
            assert reply.headers["www-authenticate"].startswith("Bearer")
        for given in headers:
            assert is_problem(client.get("/keys", headers=given), 401), given


def test_two_authorization_headers_open_nothing(gateway: Any, token: str) -> None:
    headers = [("authorization", "Bearer wrong"), ("authorization", f"Bearer {token}")]
    assert is_problem(httpx.get(f"{gateway.url}/admin/v1/keys", headers=headers, **PLAIN), 401)


def test_every_listed_path_is_in_the_schema(openapi: Any) -> None:
    described = {
        (method.upper(), path)
        for path, methods in openapi["paths"].items()
        if path.startswith("/admin/v1")
        for method in methods
    }
    assert len(described) == len(PATHS) + 2  # one version, ID:revoke
    # Every answer but the free-form explanation has a named type.
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            good = next(v for k, v in operation["responses"].items() if k.startswith("2"))
            schema = good["content"]["application/json"]["schema"]
            assert "$ref" in schema or path.endswith("/explain"), (method, path)


RAW = [
    "//admin/v1/keys",
    "/admin/v1//keys",
    "/admin//v1/keys",
    "/admin/v1/keys/",
    "/admin/v1/keys;x=1",
    "/admin/v1/keys%2fconfigconfig",
    "/admin/v1/keys/..%2fpolicies",
    "/v1/../admin/v1/keys",
    "/admin/v1/keys/%00",
    "/admin/v1/keys/#",
    "/admin/v1/keys@x",
    "/ADMIN/v1/keys",
    "/admin/v1/%6beys",
]


def raw(port: int, path: str, *headers: str) -> tuple[int, bytes]:
    """Exactly these bytes; no client library tidies them up."""
    lines = [f"GET {path} HTTP/1.1", *headers, "connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall("\r\n".join(lines).encode())
        data = b""
        while chunk := sock.recv(65536):
            data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize("path", RAW)
def test_no_spelling_of_the_path_gets_around_the_token(gateway: Any, path: str) -> None:
    status, body = raw(gateway.port, path, "host: 127.0.0.1")
    assert status in (400, 401, 404)
    assert b"configconfig" not in body


@pytest.mark.parametrize("host", ["host: admin", "host: 127.0.0.1:1", "host: a b", "host: @/x"])
def test_the_host_header_opens_nothing(gateway: Any, host: str) -> None:
    status, body = raw(gateway.port, "/admin/v1/keys", host)
    assert status in (400, 401)
    assert b"configconfig" not in body


def test_unknown_addresses_and_methods_are_problems(admin: httpx.Client) -> None:
    assert is_problem(admin.get("/nothing"), 404)
    reply = admin.patch("/keys")
    assert is_problem(reply, 405)
    assert "GET" in reply.headers["allow"]
    assert is_problem(admin.post("/keys/configconfig:explode"), 404)
    assert is_problem(admin.post("/policies/default:explode"), 404)


def test_unknown_and_repeated_query_parameters_are_refused(admin: httpx.Client) -> None:
    reply = admin.get("/usage", params={"orgg": "acme"})
    assert is_problem(reply, 400)
    assert reply.json()["errors"] == [{"path": "orgg", "message": "unknown query parameter"}]
    assert is_problem(admin.get("/keys?limit=1&limit=2"), 400)
    assert is_problem(admin.get("/keys?context=x"), 400)
    assert is_problem(admin.post("/keys?data=x", json={}), 400)


@pytest.mark.parametrize("limit", ["0", "501", "-1", "x", "1e3"])
def test_limits_are_bounded(admin: httpx.Client, limit: str) -> None:
    reply = admin.get("/keys", params={"limit": limit})
    assert is_problem(reply, 400)
    assert reply.json()["errors"][0]["path"] == "limit"


@pytest.mark.parametrize(
    "text", ["' OR '1'='1", "x'; DROP TABLE api_keys; --", '"', "%", "\\", "🏠", "a" * 300]
)
def test_sql_in_ids_and_filters_is_inert(admin: httpx.Client, gateway: Any, text: str) -> None:
    from urllib.parse import quote

    for path in ("/keys/", "/decisions/", "/policies/"):
        assert admin.get(path + quote(text, safe="")).status_code in (400, 404)
    assert admin.delete("/keys/" + quote(text, safe="")).status_code in (400, 404)
    for path in ("/usage", "/decisions", "/usage:summary"):
        reply = admin.get(path, params={"org": text})
        assert reply.status_code == 400 or reply.json()["items"] == []
    for path in ("/keys", "/usage", "/decisions", "/changes"):
        assert is_problem(admin.get(path, params={"cursor": text}), 400)
    assert admin.get("/keys/configconfig").status_code == 200


@pytest.mark.parametrize("text", ["1~a\0b", "1~\0~feedback", "\0", "1~\x7f", "1~\u0430"])
@pytest.mark.parametrize(
    "path", ["/keys", "/budgets", "/usage", "/decisions", "/changes", "/labels", "/refits"]
)
def test_a_cursor_that_no_database_takes_is_named(
    admin: httpx.Client, path: str, text: str
) -> None:
    reply = admin.get(path, params={"cursor": text})
    assert is_problem(reply, 400)
    assert [error["path"] for error in reply.json()["errors"]] == ["cursor"]


def test_a_cursor_of_changes_is_an_id_that_the_database_can_hold(admin: httpx.Client) -> None:
    assert is_problem(admin.get("/changes", params={"cursor": 2**31}), 400)
    assert admin.get("/changes", params={"cursor": 2**31 - 1}).status_code == 200


@pytest.mark.parametrize("comment", ["x" * 501, "stricter\0"])
def test_a_comment_that_no_database_takes_is_named(admin: httpx.Client, comment: str) -> None:
    document = {"policy": {"threshold": 0.5}, "comment": comment}
    reply = admin.put("/policies/commented", json=document, headers={"if-none-match": "*"})
    assert is_problem(reply, 400)
    assert [error["path"] for error in reply.json()["errors"]] == ["comment"]


def test_a_body_has_its_limit(admin: httpx.Client) -> None:
    document = json.dumps({"policy": {"x": "y" * (1 << 20)}})
    reply = admin.post("/policies:validate", content=document)
    assert is_problem(reply, 413)


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ("", "body"),
        ("{", "body"),
        ("[]", "body"),
        ('{"org": 1}', "org"),
        ('{"organisation": "x"}', "body"),
        ('{"labels": ["a", 1]}', "labels"),
    ],
)
def test_a_bad_body_names_its_field(admin: httpx.Client, content: str, path: str) -> None:
    reply = admin.post("/keys", content=content)
    assert is_problem(reply, 400), reply.text
    (error,) = reply.json()["errors"]
    assert error["path"].startswith(path)
    assert error["message"]
    assert content or error["message"] == "a JSON body is needed"


def test_nothing_is_cached_on_the_way(admin: httpx.Client) -> None:
    assert admin.get("/keys").headers["cache-control"] == "no-store"
    assert admin.get("/nothing").headers["cache-control"] == "no-store"
