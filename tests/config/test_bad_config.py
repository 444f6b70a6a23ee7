"""A configuration that cannot be used ends with exit code 2 and the path of the key at fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.auth import config_keys, config_scopes, new_key
from gateway.cli import main
from gateway.config import ConfigError, parse_config, schema
from gateway.config.load import default_policy
from routers.onnx.manifest import TwoRuntimesError

GOOD = """
[backends.a]
provider = "openai"
api_key = "${KEY}"
models.gpt-4o = {}
[[keys]]
key = "${KEY}"
"""
ENV = {"KEY": "secret", "EMPTY": ""}

CASES = {
    "unknown key": ("[server]\nprot = 1", "server.prot", "did you mean 'port'"),
    "unknown section": ("[sever]\nport = 1", "sever", "unknown key"),
    "wrong type": ('[server]\nport = "x"', "server.port", "expected `int`"),
    "nested unknown key": (
        '[backends.b]\nprovider = "openai"\nmodels.m.inputs = 1',
        "backends.b.models.m.inputs",
        "unknown key",
    ),
    "missing secret": ('[admin]\ntoken = "${NOT_SET}"', "admin.token", "NOT_SET is not set"),
    "secret in clear": ('[admin]\ntoken = "hunter2"', "admin.token", "by reference only"),
    "name with a dash": ('[admin]\ntoken = "${TOLLHOUSE-ADMIN-TOKEN}"', "admin.token", "${NAME}"),
    "reference in a default": ('[admin]\ntoken = "${NOT_SET:-${KEY}}"', "admin.token", "${NAME}"),
    "unclosed reference": ('data_dir = "${KEY"', "data_dir", "not a reference"),
    "empty name": ('data_dir = "/x/${}"', "data_dir", "not a reference"),
    "reference in a default of no secret": (
        'data_dir = "${NOT_SET:-${KEY}}"',
        "data_dir",
        "not a reference",
    ),
    "half a secret": ('[admin]\ntoken = "th-${KEY}"', "admin.token", "as a whole"),
    "two references": ('[admin]\ntoken = "${KEY}${KEY}"', "admin.token", "as a whole"),
    "empty secret": ('[admin]\ntoken = "${EMPTY}"', "admin.token", "EMPTY is empty"),
    "empty secret with a default": (
        '[admin]\ntoken = "${EMPTY:-other}"',
        "admin.token",
        "EMPTY is empty",
    ),
    "missing required": ("[backends.b]\nmodels.m = {}", "backends.b.provider", "missing"),
    "unknown provider": (
        '[backends.b]\nprovider = "opnai"\nmodels.m = {}',
        "backends.b.provider",
        "unknown provider",
    ),
    "no model": ('[backends.b]\nprovider = "openai"', "backends.b.models", "names no model"),
    "unknown backend in a policy": (
        '[policies.p]\nprefer = ["nowhere/*"]',
        "policies.p.prefer[0]",
        "unknown backend 'nowhere'",
    ),
    "unknown tier in a policy": (
        '[policies.p]\nunclassified = "cloud"',
        "policies.p.unclassified",
        "no backend has tier",
    ),
    "unknown label": (
        '[policies.p]\nmandatory_labels = ["eu"]',
        "policies.p.mandatory_labels[0]",
        "unknown label",
    ),
    "price per token": (
        '[backends.b]\nprovider = "openai"\nmodels.m = { input = 0.0000025, output = 0.00001 }',
        "backends.b.models.m.input",
        "typed per token instead of per million",
    ),
    "the usual tier": (
        '[backends.b]\nprovider = "openai"\n[backends.b.models.m]\ninput = 1.0\noutput = 2.0\n'
        "tiers.default = { input = 1.0, output = 2.0 }",
        "backends.b.models.m.tiers.default",
        "not the name of a tier",
    ),
    "tiers without a price": (
        '[backends.b]\nprovider = "openai"\n[backends.b.models.m]\n'
        "tiers.priority = { input = 1.0, output = 2.0 }",
        "backends.b.models.m.input",
        "missing",
    ),
    "price too high": (
        '[backends.b]\nprovider = "openai"\nmodels.m = { input = 2500000.0, output = 1.0 }',
        "backends.b.models.m.input",
        "more than any model costs",
    ),
    "half a price": (
        '[backends.b]\nprovider = "openai"\nmodels.m = { input = 1.0 }',
        "backends.b.models.m.output",
        "missing",
    ),
    "default policy": ('[policy]\ndefault = "nope"', "policy.default", "no policy named"),
    "alias to nowhere": ('[aliases]\nx = "a/nope"', "aliases.x", "has no model"),
    "scope": ('[[scopes]]\nid = "planet:mars"', "scopes[0].id", "org:NAME"),
    "window": (
        '[[scopes]]\nid = "org:x"\nbudget_usd = 1\nwindow = "week"',
        "scopes[0].window",
        "must be total",
    ),
    "no digits": (
        '[[scopes]]\nid = "org:x"\nbudget_usd = 1\nwindow = "²"',
        "scopes[0].window",
        "must be total",
    ),
    "no seconds": (
        '[[scopes]]\nid = "org:x"\nbudget_usd = 1\nwindow = 0',
        "scopes[0].window",
        "must be total",
    ),
    "too many seconds": (
        '[[keys]]\nkey = "${KEY}"\nbudget_usd = 1\nwindow = 1_000_000_000',
        "keys[0].window",
        "must be total",
    ),
    "half a second": (
        '[[scopes]]\nid = "org:x"\nbudget_usd = 1\nwindow = 0.5',
        "scopes[0].window",
        "expected",
    ),
    "too long a window": (
        '[[scopes]]\nid = "org:x"\nbudget_usd = 1\nwindow = "1000000000"',
        "scopes[0].window",
        "must be total",
    ),
    "no promise": ("[policies.p.target]", "policies.p.target", "exactly one of share"),
    "two promises": (
        "[policies.p]\ntarget = { share = 0.3, cost = 1.0 }",
        "policies.p.target",
        "has share and cost",
    ),
    "share": ("[policies.p]\ntarget.share = 1.5", "policies.p.target.share", "between 0 and 1"),
    "quality": ("[policies.p]\ntarget.quality = 95", "policies.p.target.quality", "at most 1"),
    "cost": ("[policies.p]\ntarget.cost = 0", "policies.p.target.cost", "above 0"),
    "violation": ("[policies.p]\ntarget.violation = 1.0", "policies.p.target.violation", "neither"),
    "promise without a choice": (
        '[policies.p]\nroute = "weak"\ntarget.share = 0.3',
        "policies.p.target",
        "route = 'weak'",
    ),
    "unknown promise": (
        "[policies.p]\ntarget.shares = 0.3",
        "policies.p.target.shares",
        "unknown key",
    ),
    "confidence": (
        "[policies.p]\nmin_confidence = 1.5",
        "policies.p.min_confidence",
        "between 0 and 1",
    ),
    "key share": ("[policies.p]\nkey_share = -0.1", "policies.p.key_share", "between 0 and 1"),
    "unknown data class": ('[policies.p]\ndetect = ["pci"]', "policies.p.detect[0]", "'pci'"),
    "alias without auto": ('[aliases]\nx = "default"', "aliases.x", "unknown backend"),
    "too many attempts": ("[retry]\nattempts = 100", "retry.attempts", "between 1 and 3"),
    "records kept for hours": ("[records]\nkeep_days = 0.5", "records.keep_days", "between 1 and"),
    "records kept for no time": ("[records]\nkeep_days = nan", "records.keep_days", "between 1"),
    "endless lease": ("[store]\nlease = nan", "store.lease", "at least 1 second"),
    "kept for ever": (
        "[policies.p]\ncache_ttl = 9223372036854775807",
        "policies.p.cache_ttl",
        "31,536,000",
    ),
    "endless drain": ("[server]\ndrain = inf", "server.drain", "finite"),
    "no drain": ("[server]\ndrain = nan", "server.drain", "finite"),
    "endless request": ("[server]\nrequest_deadline = inf", "server.request_deadline", "finite"),
    "too many workers": ("[server]\nworkers = 100000", "server.workers", "at most 1,024"),
    "endless store": ("[store]\ndeadline_ms = inf", "store.deadline_ms", "finite"),
    "less than no memory": ("[store]\nmaxmemory_mb = -5", "store.maxmemory_mb", "between 0"),
    "more memory than there is": (
        "[store]\nmaxmemory_mb = 20000000000000",
        "store.maxmemory_mb",
        "between 0",
    ),
    "endless retry": ("[retry]\nmax_wait = inf", "retry.max_wait", "finite"),
    "less than no cache": ("[cache]\nmax_entry_kb = -1", "cache.max_entry_kb", "negative"),
    "more tokens than an engine counts": (
        '[backends.b]\nprovider = "embedded"\nengine = { parallel = 500, context = 5000000 }\n'
        "models.m = {}",
        "backends.b.engine",
        "at most 2,147,483,647",
    ),
    "less than no thread": (
        '[backends.b]\nprovider = "embedded"\nengine = { threads = -1 }\nmodels.m = {}',
        "backends.b.engine.threads",
        "between 0",
    ),
    "more output than money counts": (
        '[backends.b]\nprovider = "vllm"\nmodels.m = { max_output = 99999999999999999999 }',
        "backends.b.models.m.max_output",
        "at most",
    ),
    "negative GPU price": (
        '[backends.b]\nprovider = "vllm"\ngpu_second_usd = -1.0\nmodels.m = {}',
        "backends.b.gpu_second_usd",
        "not negative",
    ),
    "no time": (
        '[backends.b]\nprovider = "vllm"\ntimeouts = { total = 0.0 }\nmodels.m = {}',
        "backends.b.timeouts.total",
        "above 0",
    ),
    "unknown capability": (
        '[backends.b]\nprovider = "vllm"\nmodels.m = { capabilities = ["chatt"] }',
        "backends.b.models.m.capabilities[0]",
        "unknown capability",
    ),
    "not a URL": (
        '[backends.b]\nprovider = "vllm"\nbase_url = "localhost:1"\nmodels.m = {}',
        "backends.b.base_url",
        "http://",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_the_path(name: str) -> None:
    text, path, message = CASES[name]
    with pytest.raises(ConfigError) as caught:
        parse_config(GOOD.replace('[[keys]]\nkey = "${KEY}"\n', "") + text, ENV)
    assert path in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["unknown key", "price per token", "missing secret"])
def test_check_exits_with_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "secret")
    file = tmp_path / "bad.toml"
    text, path, _ = CASES[name]
    file.write_text(text)
    assert main(["check", str(file)]) == 2
    assert path in capsys.readouterr().err


def test_check_finds_what_serve_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "secret")
    file = tmp_path / "dear.toml"
    file.write_text(
        '[backends.b]\nprovider = "openai"\napi_key = "${KEY}"\nmodels.never-heard-of = {}'
    )
    assert main(["check", str(file)]) == 2
    assert "backends.b.models.never-heard-of.input" in capsys.readouterr().err


def test_two_onnx_runtimes_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from routers.onnx import session

    with pytest.raises(TwoRuntimesError, match="onnxruntime-gpu"):
        session.check_distributions(lambda _: True)

    def refuse() -> str:
        raise TwoRuntimesError("onnxruntime", "onnxruntime and onnxruntime-gpu are both installed")

    monkeypatch.setattr(session, "check_distributions", refuse)
    assert main(["serve", "--port", "0"]) == 2
    assert "onnxruntime-gpu" in capsys.readouterr().err


def test_a_missing_file_is_a_config_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "/nonexistent/tollhouse.toml"]) == 2
    told = "tollhouse: /nonexistent/tollhouse.toml: cannot be read: No such file or directory\n"
    assert capsys.readouterr().err == told


def test_a_file_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tollhouse.toml"
    file.write_bytes(b"\xff\xfe")
    assert main(["check", str(file)]) == 2
    assert capsys.readouterr().err == f"tollhouse: {file}: cannot be read: it is not UTF-8 text\n"


def test_broken_toml_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"^not valid TOML"):
        parse_config("[server", {})


def test_broken_toml_in_a_file_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tollhouse.toml"
    file.write_text("[server]\nport = = 1\n")
    assert main(["check", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"tollhouse: {file}: not valid TOML: ")


@pytest.mark.parametrize("command", ["explain", "policy validate", "router eval --data"])
def test_other_files_that_are_missing(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "/nonexistent/file.jsonl"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("tollhouse: /nonexistent/file.jsonl")
    assert told.endswith("cannot be read: No such file or directory\n")


def test_seconds_may_be_a_number() -> None:
    text = '[[scopes]]\nid = "org:x"\nbudget_usd = 1\nwindow = 3600\n[[keys]]\nkey = "${KEY}"\n'
    config = parse_config(text + "budget_usd = 1\nwindow = 60", {"KEY": new_key()})
    (scope,), ((_, key),) = config_scopes(config).values(), config_keys(config).values()
    assert (scope.terms.window, key.spec.terms.window) == ("3600", "60")


def test_defaults_of_references() -> None:
    config = parse_config('data_dir = "${WHERE:-here}"', {})
    assert config.data_dir == "here"


def test_a_value_is_not_read_for_references() -> None:
    config = parse_config('data_dir = "${WHERE}"', {"WHERE": "/x/${HOME}"})
    assert config.data_dir == "/x/${HOME}"


@pytest.mark.parametrize("env", [{}, {"TOKEN": ""}])
def test_an_empty_default_says_that_there_may_be_no_secret(env: dict[str, str]) -> None:
    assert parse_config('[admin]\ntoken = "${TOKEN:-}"', env).admin.token == ""


def test_an_engine_may_use_every_core() -> None:
    text = '[backends.b]\nprovider = "embedded"\nengine = { parallel = 2 }\nmodels.m = {}'
    engine = parse_config(text, {}).backends["b"].engine
    assert engine is not None
    assert engine.threads == 0


def test_the_default_policy_keeps_health_data_local() -> None:
    policy = default_policy()
    assert policy.labels["phi"].tiers == ("local",)
    assert "de" in policy.labels["eu"].facts["jurisdiction"]


def test_the_schema_names_every_section() -> None:
    document = schema()
    top = document["$defs"]["Config"]["properties"]
    assert {"server", "backends", "policies", "keys", "store"} <= set(top)
    assert document["$defs"]["ServerConfig"]["additionalProperties"] is False
