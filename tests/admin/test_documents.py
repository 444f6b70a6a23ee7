"""What the admin API does once inside."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gateway.auth import AuthError
from gateway.ledger import Enter
from gateway.records import RecordsRejected, RecordsUnavailable
from tests.support import PLAIN

STRICT = {"threshold": 0.9, "labels": {"phi": {"tiers": ["local"]}}}


def status(reply: httpx.Response) -> int:
    if reply.status_code >= 400:
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json()["status"] == reply.status_code
    return reply.status_code


def test_a_policy_from_first_read_to_roll_back(admin: httpx.Client) -> None:
    first = admin.get("/policies/cheap")
    etag = first.headers["etag"]
    assert first.json()["etag"] == etag
    assert status(admin.put("/policies/cheap", json={"policy": STRICT})) == 428
    stored = admin.put(
        "/policies/cheap",
        json={"policy": STRICT, "comment": "stricter"},
        headers={"if-match": etag},
    )
    assert (status(stored), stored.json()["version"], stored.json()["active"]) == (200, 2, True)
    stale = admin.put("/policies/cheap", json={"policy": {}}, headers={"if-match": etag})
    assert status(stale) == 412
    assert stale.headers["etag"] == stored.headers["etag"]
    assert admin.get("/policies/cheap").json()["policy"]["threshold"] == 0.9
    back = admin.post("/policies/cheap:rollback")
    assert (status(back), back.json()["version"]) == (200, 1)
    assert status(admin.post("/policies/cheap:rollback")) == 409
    again = admin.post("/policies/cheap/versions/2:activate", headers={"if-match": etag})
    assert (status(again), again.headers["etag"]) == (200, stored.headers["etag"])
    lines = admin.get("/policies/cheap/versions").json()["items"]
    assert [(i["version"], i["active"], i["author"]) for i in lines] == [
        (2, True, "admin"),
        (1, False, "config"),
    ]
    old = admin.get("/policies/cheap/versions/1").json()
    assert (old["policy"]["route"], old["active"]) == ("weak", False)
    log = admin.get("/changes").json()["items"]
    assert [entry["action"] for entry in log] == [
        "policy.activate",
        "policy.rollback",
        "policy.put",
    ]


def test_a_new_policy_and_a_draft(admin: httpx.Client) -> None:
    new = {"if-none-match": "*"}
    assert status(admin.put("/policies/fresh", json={"policy": {}}, headers=new)) == 200
    assert status(admin.put("/policies/fresh", json={"policy": {}}, headers=new)) == 412
    draft = admin.put(
        "/policies/fresh", json={"policy": STRICT, "activate": False}, headers={"if-match": "*"}
    )
    assert draft.json()["active"] is False
    assert admin.get("/policies/fresh").json()["version"] == 1
    names = [item["name"] for item in admin.get("/policies").json()["items"]]
    assert names == ["cheap", "default", "fresh"]


@pytest.mark.parametrize("document", [{}, {"target": {"share": 0.3}}])
def test_what_was_read_can_be_written(admin: httpx.Client, document: dict[str, object]) -> None:
    admin.put("/policies/fresh", json={"policy": document}, headers={"if-none-match": "*"})
    read = admin.get("/policies/fresh")
    again = {"policy": read.json()["policy"]}
    written = admin.put("/policies/fresh", json=again, headers={"if-match": read.headers["etag"]})
    assert status(written) == 200
    assert written.json()["policy"] == read.json()["policy"]
    nothing = {"policy": {"threshold": None}}
    any_version = {"if-match": "*"}
    reply = admin.put("/policies/fresh", json=nothing, headers=any_version)
    expected = {"path": "threshold", "message": "expected `float`, got `null`"}
    assert reply.json()["errors"] == [expected]
    nothing = {"policy": {"labels": None}}
    reply = admin.put("/policies/fresh", json=nothing, headers=any_version)
    assert reply.json()["errors"] == [{"path": "labels", "message": "expected a table, got null"}]


def test_a_wrong_document_names_its_place(admin: httpx.Client) -> None:
    wrong = {"labels": {"phi": {"tiers": ["moon"]}}}
    reply = admin.put("/policies/cheap", json={"policy": wrong}, headers={"if-match": "*"})
    assert status(reply) == 422
    assert [error["path"] for error in reply.json()["errors"]] == ["labels.phi.tiers[0]"]
    check = admin.post("/policies:validate", json={"policy": {"treshold": 1}}).json()
    assert check["valid"] is False
    assert check["errors"][0]["path"] == "treshold"
    assert "threshold" in check["errors"][0]["message"]
    assert admin.post("/policies:validate", json={"policy": STRICT}).json() == {
        "valid": True,
        "errors": [],
    }


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/policies/nope", 404),
        ("GET", "/policies/nope/versions", 404),
        ("GET", "/policies/cheap/versions/9", 404),
        ("GET", "/policies/cheap/versions/x", 404),
        ("POST", "/policies/cheap/versions/9:activate", 404),
        ("POST", "/policies/cheap/versions/x:activate", 400),
        ("POST", "/policies/cheap/versions/99999999999999999999:activate", 400),
        ("POST", "/policies/nope:rollback", 404),
        ("POST", "/policies/-x:rollback", 400),
        ("GET", "/keys/short", 400),
        ("GET", "/keys/abcdefghijkl", 404),
        ("DELETE", "/keys/abcdefghijkl", 404),
        ("DELETE", "/keys/configconfig", 409),
        ("POST", "/keys/configconfig:revoke", 409),
        ("GET", "/decisions/dec_nope", 404),
    ],
)
def test_what_is_not_there(admin: httpx.Client, method: str, path: str, expected: int) -> None:
    assert status(admin.request(method, path)) == expected


def test_policies_of_a_file_are_read_only(file_gateway: Any, token: str) -> None:
    headers = {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{file_gateway.url}/admin/v1", headers=headers, **PLAIN) as admin:
        assert admin.get("/policies").json()["source"] == "file"
        assert status(admin.put("/policies/cheap", json={"policy": {}})) == 409
        assert status(admin.post("/policies/cheap:rollback")) == 409
        assert admin.get("/policies/cheap").json()["policy"]["route"] == "weak"


def test_a_key_from_creation_to_revocation(admin: httpx.Client, gateway: Any) -> None:
    body = {"org": "acme", "team": "blue", "labels": ["pii"], "budget_usd": 0.5, "window": "day"}
    made = admin.post("/keys", json=body)
    assert status(made) == 201
    key, key_id = made.json()["key"], made.json()["id"]
    assert made.json()["budget_usd"] == 0.5
    principal = gateway.call(lambda c: c.keyring.authenticate(key))
    assert principal.labels == {"pii", "eu"}
    for reply in (admin.get("/keys"), admin.get(f"/keys/{key_id}"), admin.get("/changes")):
        assert key_id in reply.text
        assert key[-43:] not in reply.text
    gone = admin.delete(f"/keys/{key_id}")
    assert gone.json()["state"] == "revoked"
    assert admin.post(f"/keys/{key_id}:revoke").json() == gone.json()
    with pytest.raises(AuthError):
        gateway.call(lambda c: c.keyring.authenticate(key))


def test_an_idempotency_key_makes_one_key(admin: httpx.Client) -> None:
    headers = {"idempotency-key": "deploy-7"}
    with ThreadPoolExecutor(4) as pool:
        replies = list(
            pool.map(lambda _: admin.post("/keys", json={"user": "ada"}, headers=headers), range(8))
        )
    assert sorted(reply.status_code for reply in replies) == [200] * 7 + [201]
    assert len({reply.json()["id"] for reply in replies}) == 1
    for reply in replies:
        fresh = reply.status_code == 201
        assert (reply.json()["key"] is not None) is fresh
        assert ("idempotency-replayed" in reply.headers) is not fresh
    assert status(admin.post("/keys", json={"user": "bob"}, headers=headers)) == 422
    assert len(admin.get("/keys").json()["items"]) == 2


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"org": "a b"}, "org"),
        ({"team": "../x"}, "team"),
        ({"labels": ["ok", "NOT OK"]}, "labels[1]"),
        ({"policy": "nope"}, "policy"),
        ({"budget_usd": -1}, "budget_usd"),
        ({"budget_usd": 1e300}, "budget_usd"),
        ({"window": "week"}, "window"),
        ({"concurrency": 0}, "concurrency"),
        ({"requests_per_minute": 10**15}, "requests_per_minute"),
        ({"allow": ["a b"]}, "allow[0]"),
        ({"tags": ["x"] * 65}, "tags"),
        ({"expires_at": 1}, "expires_at"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": 1e300}, "expires_in"),
        ({"expires_in": 60, "expires_at": 4e9}, "expires_in"),
    ],
)
def test_a_key_that_cannot_be_names_the_field(
    admin: httpx.Client, body: dict[str, Any], path: str
) -> None:
    reply = admin.post("/keys", json=body)
    assert status(reply) == 400
    assert [error["path"] for error in reply.json()["errors"]] == [path]


@pytest.mark.parametrize(
    "window",
    [
        "000000000001000000000000",
        "000000000001999999999",
        "1000000000",
        "0",
        "",
        "-1",
        "²",
        "٣",
        "1e3",
    ],
)
def test_a_window_that_no_ledger_can_read_is_not_stored(
    admin: httpx.Client, gateway: Any, window: str
) -> None:
    for ask, path in ((admin.post, "/keys"), (admin.put, "/budgets/team:red")):
        answer = ask(path, json={"budget_usd": 1, "window": window})
        assert status(answer) == 400
        assert answer.json()["errors"][0]["path"] == "window"
    page = admin.get("/budgets")
    assert status(page) == 200
    assert [scope["id"] for scope in page.json()["scopes"]] == ["org:acme"]


def test_a_window_of_seconds_may_be_a_number(admin: httpx.Client) -> None:
    answer = admin.post("/keys", json={"budget_usd": 1, "window": 3600})
    assert (status(answer), answer.json()["window"]) == (201, "3600")
    for window in (0, -5, 10**9, 10**30, 1.5, True):
        answer = admin.put("/budgets/team:red", json={"budget_usd": 1, "window": window})
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["path"] == "window"


def test_a_window_of_seconds_may_have_zeros_before_it(admin: httpx.Client) -> None:
    for window in ("1", "999999999", "0000000000003600"):
        answer = admin.put("/budgets/team:red", json={"budget_usd": 1, "window": window})
        assert (status(answer), answer.json()["window"]) == (200, window)
        assert status(admin.get("/budgets")) == 200


def test_the_list_of_keys_has_pages(admin: httpx.Client) -> None:
    made = {admin.post("/keys", json={}).json()["id"] for _ in range(4)} | {"configconfig"}
    seen: list[str] = []
    cursor = None
    while True:
        page = admin.get("/keys", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        seen += [item["id"] for item in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(made)


def test_budgets_show_what_is_held(admin: httpx.Client, gateway: Any) -> None:
    async def hold(context: Any) -> None:
        principal = await context.keyring.principal("configconfig")
        request = Enter(
            org="acme",
            request_id="req_1",
            scopes=principal.scopes,
            tokens=1,
            lease_s=60,
            costs=(250_000_000,),
            draft=b"{}",
        )
        assert (await context.ledger.enter(request)).outcome == "ok"

    gateway.call(hold)
    books = {item["scope"]: item for item in admin.get("/budgets").json()["items"]}
    assert set(books) == {"key:configconfig", "org:acme"}
    key = books["key:configconfig"]
    assert (key["limit"], key["spent"], key["held"], key["left"]) == (
        1_000_000_000,
        0,
        250_000_000,
        750_000_000,
    )
    assert books["org:acme"]["window"] == "day"
    assert books["org:acme"]["open"] is True


def test_terms_of_a_team_are_set_and_those_of_the_file_are_not(
    admin: httpx.Client, gateway: Any
) -> None:
    reply = admin.put("/budgets/team:red", json={"budget_usd": 2, "concurrency": 3})
    assert status(reply) == 200
    principal = gateway.call(lambda c: c.keyring.authenticate("th-configconfig-" + "c" * 43))
    assert [scope.id for scope in principal.scopes] == ["key:configconfig", "team:red", "org:acme"]
    page = admin.get("/budgets").json()
    assert {"team:red"} < {item["scope"] for item in page["items"]}
    assert [(s["id"], s["source"]) for s in page["scopes"]] == [
        ("org:acme", "config"),
        ("team:red", "database"),
    ]
    assert status(admin.put("/budgets/org:acme", json={})) == 409
    assert status(admin.put("/budgets/key:x", json={})) == 400
    assert status(admin.put("/budgets/team:x'", json={})) == 400
    assert status(admin.put("/budgets/team:red", json={"labels": ["BAD"]})) == 400


def test_who_sets_a_budget_takes_no_label_away_by_saying_nothing(
    admin: httpx.Client, gateway: Any
) -> None:
    key = "th-configconfig-" + "c" * 43
    assert status(admin.put("/budgets/team:red", json={"labels": ["phi", "eu"]})) == 200
    reply = admin.put("/budgets/team:red", json={"budget_usd": 2})
    assert status(reply) == 400
    assert reply.json()["errors"][0]["path"] == "labels"
    assert "eu" in reply.json()["errors"][0]["message"]
    principal = gateway.call(lambda c: c.keyring.authenticate(key))
    assert {"phi", "eu"} <= principal.labels
    assert "team:red" not in [scope.id for scope in principal.scopes]
    reply = admin.put("/budgets/team:red", json={"budget_usd": 2, "labels": []})
    assert reply.json()["labels"] == []
    last = admin.get("/changes").json()["items"][0]
    assert (last["action"], last["target"]) == ("scope.put", "team:red")
    assert last["before"].endswith("labels=eu,phi")
    assert last["after"].endswith("labels=")


def test_decisions_and_usage_are_found(admin: httpx.Client, gateway: Any, fill: Any) -> None:
    fill(gateway)
    newest = admin.get("/decisions", params={"limit": 2}).json()
    assert [item["decision_id"] for item in newest["items"]] == ["dec_4", "dec_3"]
    older = admin.get("/decisions", params={"limit": 2, "cursor": newest["next_cursor"]}).json()
    assert [item["decision_id"] for item in older["items"]] == ["dec_2", "dec_1"]
    other = admin.get("/decisions", params={"org": "other"}).json()["items"]
    assert [item["decision_id"] for item in other] == ["dec_3", "dec_1"]
    one = admin.get("/decisions/dec_2").json()
    assert (one["record"]["request_id"], one["seq"]) == ("req_2", 2)
    some = admin.get("/usage", params={"model": "big", "since": 1_800_000_002}).json()["items"]
    assert [item["attempt_id"] for item in some] == ["att_4", "att_3", "att_2"]
    summary = admin.get("/usage:summary", params={"by": "model"}).json()["items"]
    assert [(s["group"], s["attempts"], s["cost_nano"]) for s in summary] == [
        ({"model": "big"}, 4, 4000),
        ({"model": "small"}, 1, 1000),
    ]
    for by in ("models", "model,model", "model;x", ""):
        assert status(admin.get("/usage:summary", params={"by": by})) == 400


def test_a_changed_decision_is_found_out(admin: httpx.Client, gateway: Any, fill: Any) -> None:
    import sqlalchemy as sa

    fill(gateway)
    sound = admin.post("/audit:verify", json={}).json()
    assert sound["ok"] is True
    assert [(r["org"], r["rows"]) for r in sound["items"]] == [("acme", 3), ("other", 2)]
    forged = "UPDATE decision_records SET body = replace(body, 'req_2', 'req_9')"
    gateway.call(lambda c: c.database.write(lambda x: x.execute(sa.text(forged)).rowcount))
    broken = admin.post("/audit:verify", json={"org": "acme"}).json()
    assert broken["ok"] is False
    assert broken["items"][0]["seq"] == 2


def test_explaining_takes_a_key_and_only_tightens(admin: httpx.Client) -> None:
    request = {"messages": [{"role": "user", "content": "hi"}]}
    assert admin.post("/explain", json={"request": request}).json()["principal"] is None
    body = {"request": request, "key": "configconfig", "labels": ["pii"], "policy": "cheap"}
    found = admin.post("/explain", json=body).json()
    assert found["labels"] == ["eu", "phi", "pii"]
    assert found["principal"]["policy"] == "cheap"
    for given, path in (
        ({"request": {}}, "request.messages"),
        ({"request": request, "key": "abcdefghijkl"}, "key"),
        ({"request": request, "policy": "nope"}, "policy"),
        ({"request": request, "labels": ["NO"]}, "labels[0]"),
    ):
        reply = admin.post("/explain", json=given)
        assert status(reply) == 400
        assert reply.json()["errors"][0]["path"] == path


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"org": "\xff\xfe"}', "UTF-8"),
        (b'{"\xff": 1}', "UTF-8"),
        (b'{"x": ' + b"[" * 900 + b"]" * 900 + b"}", "200 levels"),
        (b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "200 levels"),
        (b'{"org": ', "JSON"),
    ],
)
@pytest.mark.parametrize("path", ["/keys", "/policies:validate", "/explain"])
def test_a_body_that_cannot_be_read_says_what_is_wrong(
    admin: httpx.Client, path: str, body: bytes, said: str
) -> None:
    reply = admin.post(path, content=body, headers={"content-type": "application/json"})
    assert status(reply) == 400
    (error,) = reply.json()["errors"]
    assert error["path"] in ("body", "x")
    assert said in error["message"]


def test_backends_are_shown(admin: httpx.Client) -> None:
    assert admin.get("/backends").json()["items"][0]["healthy"] is True


def test_the_database_away_is_not_a_refusal(admin: httpx.Client, gateway: Any) -> None:
    import sqlalchemy as sa

    def rename(connection: Any) -> None:
        connection.execute(sa.text("ALTER TABLE api_keys RENAME TO gone"))

    gateway.call(lambda c: c.database.write(rename))
    reply = admin.get("/keys")
    assert status(reply) == 503
    assert reply.headers["retry-after"] == "1"
    assert "sqlite" not in reply.text.lower() and "api_keys" not in reply.text


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RecordsUnavailable("away"), 503, "does not answer"),
        (RecordsRejected("UniqueViolation: secret values"), 422, "refuses"),
    ],
)
def test_a_database_that_refuses_is_told_from_one_that_is_away(
    gateway: Any,
    admin: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
    words: str,
) -> None:
    async def fail(*_: Any) -> None:
        raise error

    headers = {"if-none-match": "*"}
    monkeypatch.setattr(gateway.context.database, "read", fail)
    monkeypatch.setattr(gateway.context.database, "write", fail)
    for reply in (
        admin.get("/usage"),
        admin.put("/budgets/org:other", json={}),
        admin.put("/policies/new", json={"policy": {}}, headers=headers),
    ):
        assert status(reply) == code
        assert words in reply.json()["detail"]
        assert "secret" not in reply.text
        assert ("retry-after" in reply.headers) is (code == 503)
