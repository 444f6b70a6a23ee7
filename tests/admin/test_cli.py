"""The commands against a running gateway, and those that need none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.providers import load_providers
from gateway.cli import main

POLICY = 'threshold = 0.9\n[labels.phi]\ntiers = ["local"]\n'


@pytest.fixture
def remote(gateway: Any, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLHOUSE_URL", gateway.url)
    monkeypatch.setenv("TOLLHOUSE_ADMIN_TOKEN", token)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom gateway.cli import main\nassert main(['--help']) == 0\n"
        "heavy = {'litestar', 'httpx', 'sqlalchemy', 'msgspec', 'redis', 'onnxruntime'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in (
        "serve",
        "demo",
        "check",
        "schema",
        "explain",
        "keys",
        "budgets",
        "policy",
        "router",
    ):
        assert command in done.stdout


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nope"],
        ["keys"],
        ["keys", "create", "--concurrency", "0"],
        ["keys", "create", "--budget-usd", "nan"],
        ["keys", "create", "--budget-usd", "inf"],
        ["keys", "create", "--budget-usd", "-1"],
        ["serve", "--port", "x"],
    ],
)
def test_wrong_use_ends_with_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    assert "usage: tollhouse" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    ["keys revoke", "policy show", "decisions show", "router refits", "router activate"],
)
def test_an_empty_name_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    remote = ["--url", "http://127.0.0.1:9", "--token", "x"]
    assert main([*command.split(), "", *remote]) == 2
    assert "must not be empty" in capsys.readouterr().err


def test_keys(remote: None, gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "--org", "acme", "--label", "pii", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert gateway.call(lambda c: c.keyring.authenticate(made["key"])).labels == {"pii", "eu"}
    assert main(["keys", "list"]) == 0
    listing = capsys.readouterr().out
    assert made["id"] in listing and made["key"] not in listing
    assert main(["keys", "revoke", made["id"]]) == 0
    assert main(["keys", "list", "--json"]) == 0
    out = capsys.readouterr().out
    items = json.loads(out[out.index("[") :])
    assert {item["id"]: item["state"] for item in items}[made["id"]] == "revoked"
    assert main(["keys", "revoke", "configconfig"]) == 1
    assert "configuration file" in capsys.readouterr().err
    assert main(["keys", "create", "--label", "NOT OK"]) == 2
    assert "labels[0]: " in capsys.readouterr().err


def test_a_creation_with_an_end_can_be_repeated(
    remote: None, gateway: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["keys", "create", "--idempotency-key", "deploy-7", "--expires-in", "3600", "--json"]
    assert main(command) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["expires_at"] == pytest.approx(time.time() + 3600, abs=60)
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["id"], again["key"]) == (made["id"], None)
    assert main([*command[:-2], "7200"]) == 2
    assert "Idempotency-Key" in capsys.readouterr().err


def test_budgets(
    remote: None, gateway: Any, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(*args: str, used: bool = True) -> str:
        assert main(["keys", "create", "--json", *args]) == 0
        key = json.loads(capsys.readouterr().out)
        if used:
            gateway.call(lambda c: c.keyring.authenticate(key["key"]))
        return str(key["id"])

    unused = made("--org", "acme", "--budget-usd", "1", used=False)
    small = made("--org", "acme", "--team", "lab", "--budget-usd", "0.001", "--window", "day")
    odd = made("--org", "acme", "--team", "lab", "--budget-usd", "2.5", "--window", "3600")
    with httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {token}"}) as admin:
        # As curl -d sends it.
        form = {"content-type": "application/x-www-form-urlencoded"}
        terms = admin.put("/admin/v1/budgets/team:lab", content=b'{"budget_usd": 10}', headers=form)
        assert terms.status_code == 200, terms.text
    assert main(["keys", "list"]) == 0
    listing = capsys.readouterr().out
    assert "$0.001/day" in listing and "$2.50/3600s" in listing
    assert main(["budgets", "list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["ORG", "SCOPE", "BUDGET", "SPENT", "HELD", "LEFT", "UNTIL", "STATE"]
    rows = {line[1]: line for line in lines[1:]}
    assert len(rows) == len(lines) - 1
    assert rows[f"key:{small}"][:6] == [
        *("acme", f"key:{small}", "$0.001/day", "$0.00", "$0.00", "$0.001")
    ]
    assert rows[f"key:{odd}"][2] == "$2.50/3600s"
    assert rows["team:lab"][2] == "$10.00/month"
    assert rows[f"key:{small}"][-1] == "open"
    assert rows[f"key:{unused}"][3:] == [
        *("-", "-", "-", "-", "closed", "until", "its", "next", "request")
    ]
    assert main(["budgets", "list", "--org", "other", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_policies(
    remote: None, gateway: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    assert main(["policy", "validate", str(file)]) == 0
    assert main(["policy", "put", "cheap", str(file), "--comment", "stricter"]) == 0
    assert main(["policy", "put", "brand-new", str(file), "--draft"]) == 0
    assert "draft" in capsys.readouterr().out
    assert gateway.context.policies.get("cheap").policy.threshold == 0.9
    assert main(["policy", "rollback", "cheap"]) == 0
    assert main(["policy", "activate", "cheap", "2"]) == 0
    assert main(["policy", "history", "cheap"]) == 0
    assert "stricter" in capsys.readouterr().out
    assert main(["policy", "show", "cheap", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 2
    assert main(["policy", "list"]) == 0
    assert main(["policy", "put", "cheap", str(file), "--if-match", '"old"']) == 1
    capsys.readouterr()
    assert main(["policy", "show", "cheap", "--json"]) == 0
    shown = tmp_path / "policy.json"
    shown.write_text(capsys.readouterr().out)
    assert main(["policy", "put", "cheap", str(shown)]) == 0
    assert gateway.context.policies.get("cheap").version == 3
    file.write_text("treshold = 1\n")
    assert main(["policy", "validate", str(file)]) == 2
    assert "treshold: " in capsys.readouterr().out
    file.write_text("= broken")
    assert main(["policy", "validate", str(file)]) == 2


def test_the_chain_may_take_its_time(
    remote: None, gateway: Any, fill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(gateway)
    seconds: list[float | None] = []
    made = httpx.Client

    def client(**options: Any) -> httpx.Client:
        seconds.append(options["timeout"].read)
        return made(**options)

    monkeypatch.setattr(httpx, "Client", client)
    assert main(["decisions", "list"]) == 0
    assert main(["decisions", "verify"]) == 0
    assert seconds == [30.0, None]


def test_records(remote: None, gateway: Any, fill: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fill(gateway)
    assert main(["decisions", "list", "--org", "other"]) == 0
    out = capsys.readouterr().out
    assert "dec_3" in out and "dec_2" not in out
    assert main(["decisions", "show", "dec_2"]) == 0
    assert "up/big" in capsys.readouterr().out
    assert main(["decisions", "verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert main(["usage", "list", "--limit", "2"]) == 0
    assert "--cursor" in capsys.readouterr().out
    assert main(["usage", "summary", "--by", "model", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 2
    assert main(["usage", "summary"]) == 0
    assert "$0.000004" in capsys.readouterr().out
    assert main(["decisions", "show", "dec_9"]) == 1


def test_a_gateway_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list", "--url", "http://127.0.0.1:9", "--token", "x"]) == 1
    assert "Is the gateway running?" in capsys.readouterr().err


def test_a_wrong_token(gateway: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list", "--url", gateway.url, "--token", "wrong"]) == 1
    assert "admin API needs its own token" in capsys.readouterr().err


def test_address_and_token_come_from_the_data_directory(
    gateway: Any, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOLLHOUSE_URL", raising=False)
    monkeypatch.delenv("TOLLHOUSE_ADMIN_TOKEN", raising=False)
    config = tmp_path / "gateway.toml"
    data = tmp_path / "data"
    config.write_text(f'data_dir = "{data}"\n[server]\nport = {gateway.port}\nhost = "0.0.0.0"\n')
    assert main(["keys", "list", "--config", str(config)]) == 2
    data.mkdir()
    (data / "admin-token").write_text(token + "\n")
    assert main(["keys", "list", "--config", str(config)]) == 0


def test_check_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(
        'router.artefact = "heuristic"\n[backends.local]\nprovider = "scripted"\ntier = "local"\n'
        "[backends.local.models.fast]\n"
    )
    assert main(["check", str(config), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["backends"][0]["models"] == ["fast"]
    assert main(["check", str(config)]) == 0
    assert "valid" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("nonsense = 1", "nonsense"),
        ("[[keys]]\nkey = 'th-x'", "keys[0].key"),
        ("[[keys]]\nkey = '${KEY}'\nlabels = ['NO']", "keys[0].labels[0]"),
        ("[backends.a]\nprovider = 'nobody'\n[backends.a.models.m]", "backends.a.provider"),
        ("[[scopes]]\nid = 'user:x'", "scopes[0].id"),
        ("[auth]\nhash_key = '${SHORT}'", "auth.hash_key"),
        ("[admin]\ntoken = '${UNSET_SECRET}'", "admin.token"),
        ("[store]\nurl = 'redis://127.0.0.1:notaport'", "store.url"),
        ("[store]\nurl = 'rediss://127.0.0.1/?ssl_ca_certs=/nowhere'", "store.url"),
        ("[store]\nurl = 'rediss://127.0.0.1/?ssl_cert_reqs=perhaps'", "store.url"),
        ("[database]\nurl = 'postgresql+psycopg://127.0.0.1:notaport/x'", "database.url"),
        ("[database]\nurl = 'nothing://127.0.0.1/x'", "database.url"),
    ],
)
def test_check_names_the_path_of_what_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    path: str,
) -> None:
    monkeypatch.setenv("KEY", "th-configconfig-" + "c" * 43)
    monkeypatch.setenv("SHORT", "short")
    config = tmp_path / "gateway.toml"
    config.write_text(text + "\n")
    assert main(["check", str(config)]) == 2
    assert path in capsys.readouterr().err


def test_an_address_that_cannot_be_read_is_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text("[store]\nurl = 'redis://:pass/word@127.0.0.1:6379'\n")
    assert main(["check", str(config)]) == 2
    assert "pass/word" not in (told := capsys.readouterr().err) and "'pass'" not in told
    assert "%2F" in told


def test_schema_is_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$schema"].startswith("https://json-schema.org/")


def test_training_without_its_extra_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "routers.train.pipeline", None)

    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("routers.train.run", missing)
    assert main(["router", "train", "--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "tollhouse[train]" in capsys.readouterr().err


def test_explain_decides_offline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(
        f'data_dir = "{tmp_path}"\nrouter.artefact = "none"\n'
        '[backends.local]\nprovider = "scripted"\ntier = "local"\n[backends.local.models.fast]\n'
        '[backends.far]\nprovider = "scripted"\n'
        "[backends.far.models.big]\ninput = 1.0\noutput = 2.0\n"
    )
    request = tmp_path / "request.json"
    request.write_text('{"model": "auto", "messages": [{"role": "user", "content": "hi"}]}')
    args = ["explain", str(request), "--config", str(config), "--json"]
    assert main(args) == 0
    assert [c["backend"] for c in json.loads(capsys.readouterr().out)["plan"]] == ["far", "local"]
    assert main([*args, "--labels", "phi"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [c["backend"] for c in found["plan"]] == ["local"]
    assert [r["filter"] for r in found["rejected"]] == ["residency"]
    assert main([*args, "--labels", "unheard-of"]) == 1
    assert main([*args, "--key", "abcdefghijkl"]) == 2
    assert main([*args, "--policy", "nope"]) == 2
    request.write_text('{"model": "auto", "messages": 1}')
    assert main(args) == 2
    assert "messages: " in capsys.readouterr().err
    for body, said in ((b'{"\xff": 1}', "UTF-8"), (b"[" * 9000, "200 levels"), (b"[]", "object")):
        request.write_bytes(body)
        assert main(args) == 2
        assert said in capsys.readouterr().err


def test_explain_without_a_file_finds_what_serve_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for provider in load_providers().values():
        if provider.key_env:
            monkeypatch.delenv(provider.key_env, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-nobody's")
    monkeypatch.chdir(tmp_path)
    request = tmp_path / "request.json"
    request.write_text('{"model": "auto", "messages": [{"role": "user", "content": "hi"}]}')
    assert main(["explain", str(request), "--json"]) == 0
    shown = capsys.readouterr()
    assert "openai" in {c["backend"] for c in json.loads(shown.out)["plan"]}
    assert "tollhouse: no --config, so with what `tollhouse serve` finds here:\n" in shown.err
    assert re.search(r"^  openai: .* by OPENAI_API_KEY$", shown.err, re.MULTILINE)
    assert "sk-nobody" not in shown.out + shown.err
    # Nothing is made for it, neither a key nor a folder.
    assert [found.name for found in tmp_path.iterdir()] == ["request.json"]
