"""What is allowed and probably not meant, and what cannot be found out too early."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gateway.auth import new_key, parse_key
from gateway.cli import main
from gateway.compose import verify
from gateway.config import Config, ConfigError, parse_config
from gateway.doubts import doubts

BACKENDS = """
[backends.here]
provider = "scripted"
tier = "local"
facts = { jurisdiction = "de" }
models.m = {}
"""


def config(more: str, *, keys: bool = True) -> Config:
    key = '[[keys]]\nkey = "${KEY}"\n' if keys else ""
    text = f'[router]\nartefact = "heuristic"\n{BACKENDS}{key}{more}'
    return parse_config(text, {"KEY": new_key(), "OTHER": new_key()})


def test_a_plain_configuration_raises_none() -> None:
    assert doubts(config("")) == []


def test_a_class_that_is_detected_and_has_no_label_is_told() -> None:
    found = doubts(config('[policies.default]\nlabels.pii.tiers = ["local"]'))
    assert [said.split(":")[0] for said in found] == ["policies.default"]
    assert "detects phi and has no label phi" in found[0]
    assert doubts(config("[policies.default]\ndetect = []")) == []


def test_labels_that_nobody_satisfies_are_told() -> None:
    policy = '[policies.default]\ndetect = []\nmandatory_labels = ["us"]\n'
    policy += 'labels.us.facts.jurisdiction = ["us"]'
    assert doubts(config(policy)) == ["policies.default: no backend satisfies the label us"]


def test_a_key_that_its_share_does_not_bound_is_told() -> None:
    strong = '[backends.far]\nprovider = "scripted"\nmodels.m = { input = 1.0, output = 2.0 }\n'
    capped = "[policies.default]\ndetect = []\nkey_share = 0.5\n"
    (said,) = doubts(config(strong + capped))
    assert said.startswith("policies.default.key_share: ")
    assert "keys[0] may name one of frontier unbudgeted" in said
    assert doubts(config(capped)) == []
    assert doubts(config(strong + capped.replace("0.5", "1.0"))) == []
    bound = '[[keys]]\nkey = "${OTHER}"\n'
    for more in ("budget_usd = 1.0", 'allow = ["here/*"]'):
        assert doubts(config(f"{strong}{capped}{bound}{more}", keys=False)) == []


def test_a_local_backend_with_a_model_that_runs_elsewhere_is_told() -> None:
    ollama = """
[backends.ollama]
provider = "ollama"
base_url = "http://127.0.0.1:1/v1"
tier = "{}"
[backends.ollama.models]
"llama3.2:3b" = {{ input = 0.0, output = 0.0 }}
"big" = {{ upstream = "gpt-oss:120b-cloud", input = 1.0, output = 1.0 }}
"""
    found = doubts(config(ollama.format("local")))
    assert [said.split(": ")[0] for said in found] == ["backends.ollama.models.big"]
    assert doubts(config(ollama.format("elsewhere"))) == []


def test_keys_that_can_ask_nobody_are_told() -> None:
    assert "keys create" in doubts(config("", keys=False))[0]
    key = '[[keys]]\nkey = "${OTHER}"\nallow = ["hree/*", "here/*"]\n'
    assert doubts(config(key)) == ["keys[1].allow: hree/* is no model of a backend"]
    policy = '[policies.default]\ndetect = []\nlabels.eu.tiers = ["local"]\n'
    key = '[[keys]]\nkey = "${OTHER}"\nlabels = ["ue", "eu"]\n'
    assert doubts(config(policy + key)) == ["keys[1].labels: ue is a label of no policy"]


def test_check_prints_them_and_says_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.toml"
    file.write_text(f'data_dir = "{tmp_path}"\n[router]\nartefact = "heuristic"\n{BACKENDS}')
    assert main(["check", str(file)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2].startswith("to look at: keys: there is none")
    assert said[-1] == f"{file}: valid"


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_data_dir_that_cannot_be_used_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is no directory") as caught:
        verify(parse_config(f'data_dir = "{tmp_path / place}"\n{BACKENDS}'))
    assert caught.value.path == "data_dir"


@pytest.mark.parametrize(
    ("more", "path", "extra"),
    [
        ('[telemetry]\notlp_endpoint = "http://127.0.0.1:4318"', "telemetry.otlp_endpoint", "otlp"),
        ('[database]\nurl = "postgresql+psycopg://a@b/c"', "database.url", "postgres"),
    ],
)
def test_an_extra_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: str, path: str, extra: str
) -> None:
    found = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> object:
        return None if name.startswith(("psycopg", "opentelemetry.exporter")) else found(name)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(ConfigError, match=rf"tollhouse\[{extra}\]") as caught:
        verify(parse_config(f'data_dir = "{tmp_path}"\n{BACKENDS}{more}'))
    assert caught.value.path == path


def test_a_key_for_a_file_is_made_without_a_gateway(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new"]) == 0
    assert parse_key(capsys.readouterr().out.strip()) is not None
