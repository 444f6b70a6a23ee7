"""Deleting cached answers over the admin API and the command line."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from gateway.cli import main
from gateway.ledger import Enter, Settlement


@pytest.fixture
def filled(gateway: Any) -> Any:
    """Two answers of `acme` and one of `other`."""

    async def fill(context: Any) -> None:
        for i, org in enumerate(("acme", "acme", "other")):
            entered = await context.ledger.enter(Enter(org, f"req_{i}", (), 0, 60.0))
            kept = Settlement(org, f"req_{i}", (), 0, 0, (), f"{i}", b"text", 60, entered.at)
            await context.ledger.settle(kept)

    gateway.call(fill)
    return gateway


@pytest.fixture
def remote(filled: Any, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLHOUSE_URL", filled.url)
    monkeypatch.setenv("TOLLHOUSE_ADMIN_TOKEN", token)


def test_answers_go_and_it_is_written_down(admin: httpx.Client, filled: Any) -> None:
    assert admin.post("/cache:invalidate", json={"org": "acme"}).json()["answers"] == 2
    assert admin.post("/cache:invalidate", json={"all": True}).json()["answers"] == 1
    log = admin.get("/changes").json()["items"]
    assert [(line["action"], line["target"], line["after"]) for line in log] == [
        ("cache.invalidate", "org=*", "answers=1 file_rewritten=None"),
        ("cache.invalidate", "org=*", "begun"),
        ("cache.invalidate", "org=acme", "answers=2 file_rewritten=None"),
        ("cache.invalidate", "org=acme", "begun"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"org": None},
        {"all": False},
        {"org": "acme", "all": True},
        {"org": "*"},
        {"org": ""},
        {"org": "a" * 129},
        {"org": "caf\u00e9"},
    ],
)
def test_what_to_delete_must_be_said(
    admin: httpx.Client, filled: Any, body: dict[str, Any]
) -> None:
    reply = admin.post("/cache:invalidate", json=body)
    assert (reply.status_code, reply.json()["errors"][0]["path"]) == (400, "org")
    assert admin.get("/changes").json()["items"] == []
    assert admin.post("/cache:invalidate", json={"all": True}).json()["answers"] == 3


def test_the_command(remote: None, admin: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "invalidate"]) == 2
    assert main(["cache", "invalidate", "--org", "acme", "--all"]) == 2
    assert main(["cache", "invalidate", "--org", ""]) == 2
    capsys.readouterr()
    assert main(["cache", "invalidate", "--org", "acme"]) == 0
    assert capsys.readouterr().out == "2 cached answers are deleted\n"
    assert main(["cache", "invalidate", "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"answers": 1, "file_rewritten": None}
    assert main(["cache", "invalidate", "--org", "a b"]) == 2
    assert "org: 1 to 128 of" in capsys.readouterr().err
