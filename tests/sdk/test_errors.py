"""Every error class of the `openai` SDK, caused for real, and the form of every error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from gateway.auth import new_key
from tests.support import Gateway, Upstream, free_port

Connect = Callable[..., openai.OpenAI]
Form = Callable[[Any], dict[str, Any]]
Counts = Callable[[], dict[str, float]]
HELLO: Any = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("model", {"model": ""}),
        ("model", {"extra_body": {"model": 7}}),
        ("messages", {"messages": []}),
        ("messages", {"extra_body": {"messages": "Hello"}}),
        ("messages[0]", {"messages": ["Hello"]}),
        ("messages[0].role", {"messages": [{"content": "Hello"}]}),
        ("messages[1].content", {"messages": [*HELLO, {"role": "user", "content": 5}]}),
        ("temperature", {"temperature": 2.5}),
        ("temperature", {"temperature": "warm"}),
        ("top_p", {"top_p": -1}),
        ("n", {"n": 0}),
        ("n", {"n": True}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_completion_tokens", {"max_completion_tokens": 1.5}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 50}),
        ("tools", {"tools": {"type": "function"}}),
        ("response_format", {"response_format": "json"}),
        ("stream", {"extra_body": {"stream": "yes"}}),
        ("stream_options", {"stream_options": {"include_usage": True}}),
        ("stream_options", {"stream": True, "stream_options": "usage"}),
        ("api_base", {"extra_body": {"api_base": "http://127.0.0.1:1/v1"}}),
        ("base_url", {"extra_body": {"base_url": "http://127.0.0.1:1/v1"}}),
        ("api_key", {"extra_body": {"api_key": "sk-mine"}}),
        ("x-tollhouse-max-cost", {"extra_headers": {"x-tollhouse-max-cost": "cheap"}}),
        ("x-tollhouse-policy", {"extra_headers": {"x-tollhouse-policy": "nobody's"}}),
        ("x-tollhouse-residency", {"extra_headers": {"x-tollhouse-residency": "not a label!"}}),
    ],
)
def test_bad_request_names_the_field(
    client: openai.OpenAI, error_form: Form, param: str, fields: dict[str, Any]
) -> None:
    asked: Any = {"model": "scripted", "messages": HELLO, **fields}
    with pytest.raises(openai.BadRequestError) as failed:
        client.chat.completions.create(**asked)
    error = error_form(failed.value)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == failed.value.param == param


def test_bad_request_of_the_other_operations(client: openai.OpenAI, error_form: Form) -> None:
    with pytest.raises(openai.BadRequestError) as failed:
        client.completions.create(model="engine/tiny", prompt="")
    assert error_form(failed.value)["param"] == "prompt"
    with pytest.raises(openai.BadRequestError) as failed:
        client.embeddings.create(model="engine/tiny", input=[])
    assert error_form(failed.value)["param"] == "input"
    with pytest.raises(openai.BadRequestError) as failed:
        client.embeddings.create(model="claude/tiny", input="Hello")
    assert "embeddings" in error_form(failed.value)["message"]


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("response_format", {"response_format": {"type": "json_object"}}),
        ("n", {"n": 2}),
        ("logprobs", {"logprobs": True}),
        ("max_tokens", {"max_tokens": 100_000}),
        ("max_completion_tokens", {"max_completion_tokens": 100_000}),
    ],
)
def test_what_no_model_can_do_is_a_bad_request(
    client: openai.OpenAI, error_form: Form, param: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as failed:
        client.chat.completions.create(model="scripted/plain", messages=HELLO, **fields)
    error = error_form(failed.value)
    assert (error["param"], error["code"]) == (param, "unsupported_parameter")


def test_the_nearest_model_says_what_is_wrong(connect: Connect, error_form: Form) -> None:
    """With `auto`, a model of another kind must not hide the one that nearly would do."""
    client = connect("narrow")
    for param, fields in (
        ("max_tokens", {"max_tokens": 1_000_000}),
        ("modalities", {"modalities": ["text", "audio"]}),
    ):
        asked: Any = {"model": "auto", "messages": HELLO, **fields}
        with pytest.raises(openai.BadRequestError) as failed:
            client.chat.completions.create(**asked)
        error = error_form(failed.value)
        assert error["param"] == param
        assert "engine/" in error["message"]
    with pytest.raises(openai.BadRequestError) as failed:
        client.embeddings.create(model="engine/tiny", input="bridge river " * 6000)
    error = error_form(failed.value)
    assert (error["param"], error["code"]) == ("input", "context_length_exceeded")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"model": "scripted", "messages": ' + b"[" * 100_000,
        b'{"model": "scripted", "messages": [{"role": "user", "content": "a"}], "top_p": NaN}',
    ],
    ids=["empty", "cut", "array", "string", "binary", "deep", "deep-inside", "nan"],
)
@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings"])
def test_a_body_that_is_no_request(
    http: httpx.Client, error_form: Form, path: str, body: bytes
) -> None:
    reply = http.post(f"/v1/{path}", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert error_form(reply)["type"] == "invalid_request_error"


NESTED = b"[" * 900 + b"]" * 900
WITH = b'{"model": "scripted", "messages": [{"role": "user", "content": "a"}], %s}'


@pytest.mark.parametrize(
    ("path", "body", "param", "said"),
    [
        ("chat/completions", WITH % b'"user": "\xff\xfe"', None, "UTF-8"),
        ("chat/completions", WITH % b'"\xff": 1', None, "UTF-8"),
        ("chat/completions", WITH % (b'"x": ' + NESTED), "x", "200 levels"),
        ("chat/completions", WITH % (b'"prompt": ' + NESTED), "prompt", "200 levels"),
        ("completions", b'{"model": "scripted", "prompt": %s}' % NESTED, "prompt", "200 levels"),
        ("completions", b'{"model": "scripted", "prompt": ["a", [[1]]]}', "prompt[1]", "token ids"),
        ("embeddings", b'{"model": "scripted", "input": [[["a"]]]}', "input[0]", "token ids"),
        ("feedback", b'{"decision_id": "\xff"}', None, "UTF-8"),
        ("feedback", b'{"decision_id": "a", "outcome": %s}' % NESTED, "outcome", "200 levels"),
    ],
)
def test_a_body_that_cannot_be_read_says_what_is_wrong(
    http: httpx.Client, error_form: Form, path: str, body: bytes, param: str | None, said: str
) -> None:
    reply = http.post(f"/v1/{path}", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    error = error_form(reply)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert said in error["message"]


def test_what_is_nested_less_deep_is_served(http: httpx.Client) -> None:
    nested = b"[" * 199 + b"]" * 199
    for field in (b"x", b"prompt", b"metadata"):
        reply = http.post("/v1/chat/completions", content=WITH % (b'"%s": %s' % (field, nested)))
        assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    ("request_body", "path"),
    [
        ({}, "request.model"),
        ({"model": "nobody's", "messages": HELLO}, "request.model"),
        ({"model": "scripted", "messages": "Hello"}, "request.messages"),
        ({"model": "scripted", "prompt": [[["a"]]]}, "request.prompt[0]"),
    ],
)
def test_explaining_a_bad_request_names_the_field(
    tollhouse: Gateway, request_body: dict[str, Any], path: str
) -> None:
    with tollhouse.admin() as admin:
        reply = admin.post("/explain", json={"request": request_body})
    assert (reply.status_code, reply.json()["status"]) == (400, 400)
    assert reply.headers["content-type"] == "application/problem+json"
    assert [error["path"] for error in reply.json()["errors"]] == [path]


def test_half_a_character_is_no_defect(http: httpx.Client, error_form: Form) -> None:
    """JSON can spell text that UTF-8 cannot carry."""
    body = b'{"model": "scripted", "messages": [{"role": "user", "content": "a \\ud83d b"}]}'
    reply = http.post("/v1/chat/completions", content=body)
    assert reply.status_code == 400
    assert error_form(reply)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "kind", ["missing", "malformed", "unknown", "wrong secret", "other scheme"]
)
def test_authentication(tollhouse: Gateway, connect: Connect, error_form: Form, kind: str) -> None:
    key = {
        "malformed": "sk-not-one-of-ours",
        "unknown": new_key(),
        "wrong secret": tollhouse.key[:16] + new_key()[16:],
    }.get(kind, tollhouse.key)
    headers: Any = {
        "missing": {"Authorization": openai.Omit()},
        "other scheme": {"Authorization": f"Basic {key}"},
    }.get(kind, {})
    client = connect(api_key=key, max_retries=2)
    for call in (
        lambda: client.chat.completions.create(
            model="scripted", messages=HELLO, extra_headers=headers
        ),
        lambda: client.models.list(extra_headers=headers),
    ):
        with pytest.raises(openai.AuthenticationError) as failed:
            call()
        error = error_form(failed.value)
        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
        assert failed.value.response.headers["www-authenticate"] == "Bearer"
        assert key not in error["message"]


def test_an_unknown_key_and_a_wrong_secret_look_alike(tollhouse: Gateway, connect: Connect) -> None:
    messages = set()
    for key in (new_key(), tollhouse.key[:16] + new_key()[16:]):
        with pytest.raises(openai.AuthenticationError) as failed:
            connect(api_key=key).models.list()
        messages.add(failed.value.message)
    assert len(messages) == 1


@pytest.mark.parametrize("labels", ["secret", "secret,mars", "mars"])
@pytest.mark.parametrize("streamed", [False, True])
def test_residency_is_permission_denied(
    connect: Connect,
    error_form: Form,
    requests: Counts,
    labels: str,
    streamed: bool,
) -> None:
    """A label that no policy knows allows nothing either. The SDK does not ask twice."""
    before = requests()
    with pytest.raises(openai.PermissionDeniedError) as failed:
        connect(max_retries=2).chat.completions.create(
            model="auto",
            messages=HELLO,
            stream=streamed,
            extra_headers={"x-tollhouse-residency": labels},
        )
    error = error_form(failed.value)
    assert (error["type"], error["code"]) == ("permission_denied", "residency_not_available")
    assert labels.split(",")[-1] in error["message"]
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert requests()["refused"] == before["refused"] + 1


def test_a_labelled_key_is_permission_denied(connect: Connect, error_form: Form) -> None:
    with pytest.raises(openai.PermissionDeniedError) as failed:
        connect("secret").chat.completions.create(model="scripted", messages=HELLO)
    assert error_form(failed.value)["code"] == "residency_not_available"


def test_a_model_that_is_not_permitted(connect: Connect, error_form: Form) -> None:
    client = connect("narrow")
    with pytest.raises(openai.PermissionDeniedError) as failed:
        client.chat.completions.create(model="scripted", messages=HELLO)
    error = error_form(failed.value)
    assert (error["code"], error["param"]) == ("model_not_permitted", "model")
    assert client.chat.completions.create(model="auto", messages=HELLO).choices


def test_an_unknown_model_is_not_found(client: openai.OpenAI, error_form: Form) -> None:
    for model in ("gpt-99", "engine/none", "auto:none", "x" * 100_000):
        with pytest.raises(openai.NotFoundError) as failed:
            client.chat.completions.create(model=model, messages=HELLO)
        error = error_form(failed.value)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert error["message"].startswith(f"There is no model {model[:200]!r}; GET /v1/models ")
        assert len(error["message"]) < 400


def test_what_is_not_served_is_not_found(client: openai.OpenAI, error_form: Form) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: client.responses.create(model="auto", input="Hello"),
        lambda: client.images.generate(model="auto", prompt="a bridge"),
        lambda: client.moderations.create(input="Hello"),
        lambda: client.files.list(),
        lambda: client.get("/nothing/here", cast_to=object),
    ]
    for call in calls:
        with pytest.raises(openai.NotFoundError) as failed:
            call()
        assert error_form(failed.value)["code"] == "not_found"


@pytest.mark.parametrize(
    ("path", "asks"),
    [
        ("/v1/chat/completions/", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/completions/", {"prompt": "Hi"}),
        ("/v1/embeddings/", {"input": "Hi"}),
    ],
)
def test_a_slash_at_the_end_changes_nothing(
    http: httpx.Client, path: str, asks: dict[str, Any]
) -> None:
    reply = http.post(path, json={"model": "scripted/ok", **asks})
    assert (reply.status_code, reply.headers["x-tollhouse-backend"]) == (200, "scripted")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/chat/completions"),
        ("DELETE", "/v1/embeddings"),
        ("PUT", "/v1/completions"),
        ("POST", "/v1/models"),
        ("DELETE", "/v1/models/auto"),
        ("POST", "/livez"),
    ],
)
def test_a_wrong_method(http: httpx.Client, error_form: Form, method: str, path: str) -> None:
    reply = http.request(method, path)
    assert reply.status_code == 405
    assert error_form(reply)["code"] == "method_not_allowed"
    allowed = reply.headers["allow"]
    assert allowed
    assert method not in allowed


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/chat/completions", "/v1/chat", "/favicon.ico"])
def test_an_unknown_path(http: httpx.Client, error_form: Form, path: str) -> None:
    reply = http.get(path)
    assert reply.status_code == 404
    assert error_form(reply)["code"] == "not_found"
    assert reply.headers["x-request-id"].startswith("req_")


def test_a_base_url_without_v1_is_told_so(
    connect: Connect, tollhouse: Gateway, error_form: Form
) -> None:
    client = connect().with_options(base_url=tollhouse.url)
    calls: dict[str, Callable[[], Any]] = {
        "/chat/completions": lambda: client.chat.completions.create(model="auto", messages=HELLO),
        "/completions": lambda: client.completions.create(model="auto", prompt="Hello"),
        "/embeddings": lambda: client.embeddings.create(model="auto", input="Hello"),
        "/models": client.models.list,
        "/models/engine/tiny": lambda: client.get("/models/engine/tiny", cast_to=object),
        "/feedback": lambda: client.post("/feedback", cast_to=object),
    }
    for path, call in calls.items():
        with pytest.raises(openai.NotFoundError) as failed:
            call()
        said = error_form(failed.value)["message"]
        assert said == f"There is no {path}; did you mean /v1{path}?"


@pytest.mark.parametrize("path", ["/responses", "/chat", "/model", "/nothing", "/keys"])
def test_nothing_is_guessed_where_v1_has_no_such_path(
    http: httpx.Client, error_form: Form, path: str
) -> None:
    assert error_form(http.post(path))["message"] == f"There is no {path}."


@pytest.mark.parametrize("size", [1_100_000, 8_000_000])
def test_too_large_a_body(connect: Connect, error_form: Form, size: int) -> None:
    client = connect(max_retries=2)
    with pytest.raises(openai.APIStatusError) as failed:
        client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "x" * size}]
        )
    assert failed.value.status_code == 413
    assert error_form(failed.value)["code"] == "request_too_large"
    # The connection is not left in the middle of the unread body.
    assert client.chat.completions.create(model="scripted", messages=HELLO).choices


def test_too_large_a_body_of_unknown_length(http: httpx.Client, error_form: Form) -> None:
    reply = http.post("/v1/chat/completions", content=iter([b" " * 65_536] * 20))
    assert reply.status_code == 413
    assert error_form(reply)["code"] == "request_too_large"


def test_over_budget_is_402_and_not_asked_again(
    connect: Connect, error_form: Form, upstream: Upstream, requests: Counts
) -> None:
    client = connect("poor", max_retries=2)
    attempts, before = len(upstream.log()), requests()
    with pytest.raises(openai.APIStatusError) as failed:
        client.chat.completions.create(model="scripted", messages=HELLO)
    assert failed.value.status_code == 402
    error = error_form(failed.value)
    assert (error["code"], error["type"]) == ("budget_exceeded", "insufficient_quota")
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert requests()["refused"] == before["refused"] + 1
    assert len(upstream.log()) == attempts
    # What costs nothing can always be paid.
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=HELLO)
    assert raw.headers["x-tollhouse-tier"] == "local"


def test_a_clients_own_bound_is_402(connect: Connect, error_form: Form) -> None:
    with pytest.raises(openai.APIStatusError) as failed:
        connect().chat.completions.create(
            model="scripted", messages=HELLO, extra_headers={"x-tollhouse-max-cost": "0.0000001"}
        )
    assert failed.value.status_code == 402
    assert error_form(failed.value)["code"] == "budget_exceeded"


def test_the_request_limit(connect: Connect, error_form: Form) -> None:
    client = connect("rare")
    first = client.chat.completions.with_raw_response.create(model="scripted", messages=HELLO)
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(openai.RateLimitError) as failed:
        client.chat.completions.create(model="scripted", messages=HELLO)
    error = error_form(failed.value)
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert 1 <= int(failed.value.response.headers["retry-after"]) <= 61
    assert failed.value.response.headers["x-should-retry"] == "true"


def test_the_sdk_waits_out_a_concurrency_limit(connect: Connect, requests: Counts) -> None:
    client = connect("single", max_retries=5)
    before = requests()
    with client.chat.completions.create(model="slow/bad", messages=HELLO, stream=True) as busy:
        next(iter(busy))
        with pytest.raises(openai.RateLimitError) as failed:
            client.with_options(max_retries=0).chat.completions.create(
                model="scripted", messages=HELLO
            )
        assert "concurrent" in failed.value.message
        answer = client.chat.completions.create(model="scripted", messages=HELLO)
    assert answer.choices
    assert requests()["refused"] >= before["refused"] + 2


FAULTS = [
    ("status-400", openai.BadRequestError, 400, None),
    ("context", openai.BadRequestError, 400, "context_length_exceeded"),
    ("status-401", openai.InternalServerError, 502, "upstream_auth_failed"),
    ("status-404", openai.InternalServerError, 502, "upstream_model_missing"),
    ("status-429", openai.RateLimitError, 429, "rate_limit_exceeded"),
    ("status-500", openai.InternalServerError, 502, "upstream_error"),
    ("status-503", openai.InternalServerError, 503, "upstream_overloaded"),
    ("reset", openai.InternalServerError, 503, "upstream_unreachable"),
    ("html", openai.InternalServerError, 502, "upstream_error"),
    ("hang", openai.InternalServerError, 504, "upstream_timeout"),
]


@pytest.mark.parametrize(("fault", "kind", "status", "code"), FAULTS)
@pytest.mark.parametrize("dialect", ["", "messages-"])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_upstreams_failure(
    connect: Connect,
    upstream: Upstream,
    requests: Counts,
    error_form: Form,
    fault: str,
    kind: type[openai.APIStatusError],
    status: int,
    code: str | None,
    dialect: str,
    streamed: bool,
) -> None:
    """Never a broken connection, and asked once: the gateway has already tried what could be."""
    # An upstream that says when is believed, and the SDK would wait as long.
    retries = 0 if fault == "status-429" else 2
    before, attempts = requests(), len(upstream.log())
    with pytest.raises(kind) as failed:
        connect(max_retries=retries).chat.completions.create(
            model=f"{dialect}{fault}/bad", messages=HELLO, stream=streamed
        )
    assert failed.value.status_code == status
    error = error_form(failed.value)
    if code is not None:
        assert error["code"] == code
    headers = failed.value.response.headers
    if fault == "status-429":
        assert headers["retry-after"] == "7"
        assert headers["x-should-retry"] == "true"
    else:
        assert headers["x-should-retry"] == "false"
        assert "retry-after" not in headers
    assert requests()["requests"] == before["requests"] + 1
    # Two attempts, and one more where the first met a kept-alive connection that was reset.
    assert 1 <= len(upstream.log()) - attempts <= 3


def test_a_content_filter_is_a_bad_request(client: openai.OpenAI, error_form: Form) -> None:
    with pytest.raises(openai.BadRequestError) as failed:
        client.chat.completions.create(model="filter/bad", messages=HELLO)
    assert error_form(failed.value)["code"] == "content_policy_violation"


def test_no_upstream_at_all(client: openai.OpenAI, error_form: Form) -> None:
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model="dead/gone", messages=HELLO)
    assert failed.value.status_code == 503
    assert error_form(failed.value)["code"] == "upstream_unreachable"


@pytest.mark.parametrize("fault", ["cut-fin", "cut-rst", "nofinish", "stall"])
@pytest.mark.parametrize("dialect", ["", "messages-"])
def test_a_stream_that_breaks_ends_in_an_api_error(
    connect: Connect, upstream: Upstream, error_form: Form, fault: str, dialect: str
) -> None:
    """What came before is delivered, and the end is neither a success nor a lost connection."""
    before = len(upstream.log())
    text = ""
    with pytest.raises(openai.APIError) as failed:
        for chunk in connect(max_retries=2).chat.completions.create(
            model=f"{dialect}{fault}/bad", messages=HELLO, stream=True
        ):
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert type(failed.value) is openai.APIError
    error = error_form(failed.value)
    codes = {"stall": "upstream_timeout", "cut-rst": "upstream_error"}
    assert error["code"] == codes.get(fault, "upstream_stream_truncated")
    assert text == " ".join(f"w{i}" for i in range(20 if fault == "nofinish" else 5))
    assert len(upstream.log()) == before + 1


async def test_a_broken_stream_with_the_async_client(
    aclient: openai.AsyncOpenAI, error_form: Form
) -> None:
    stream = await aclient.chat.completions.create(model="cut-rst/bad", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError) as failed:
        _ = [chunk async for chunk in stream]
    assert error_form(failed.value)["code"] == "upstream_error"


async def test_errors_with_the_async_client(aclient: openai.AsyncOpenAI, error_form: Form) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        await aclient.chat.completions.create(model="auto", messages=[])
    assert error_form(bad.value)["param"] == "messages"
    with pytest.raises(openai.NotFoundError) as missing:
        await aclient.chat.completions.create(model="none", messages=HELLO)
    assert error_form(missing.value)["code"] == "model_not_found"


def test_a_connection_error_means_that_there_is_no_gateway(connect: Connect) -> None:
    with pytest.raises(openai.APIConnectionError):
        connect().with_options(base_url=f"http://127.0.0.1:{free_port()}/v1").models.list()


def test_a_client_that_gives_up_is_no_longer_served(connect: Connect, upstream: Upstream) -> None:
    before = len(upstream.log())
    with pytest.raises(openai.APITimeoutError):
        connect(timeout=0.5).chat.completions.create(model="slow/bad", messages=HELLO)
    deadline = time.monotonic() + 5
    while (attempt := upstream.log()[before])["ended"] is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert attempt["cancelled_at"] is not None
