"""From the configuration to a decision: which card each target gets, and what it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.http import UpstreamTransport
from gateway.cards import activated_cards, build_cards
from gateway.cli import main
from gateway.compose import build_catalog
from gateway.config import Config, ConfigError, parse_config
from gateway.demo.setup import demo_config
from gateway.explain import explain_offline
from routers.cards import Card, CardError, Cards, encode_cards

BACKENDS = """
[backends.ollama]
provider = "ollama"
base_url = "http://127.0.0.1:9/v1"
tier = "local"
models = { "llama3.1:8b" = {}, "qwen2.5:72b" = {}, tiny = {} }
[backends.ward]
provider = "vllm"
base_url = "http://127.0.0.1:9/v1"
tier = "local"
models = { special = { upstream = "meta-llama/Llama-3.1-8B-Instruct" } }
[backends.gemini]
provider = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "${KEY}"
[backends.gemini.models]
"gemini-1.5-pro-002" = { input = 1.0, output = 2.0 }
"gpt-4o" = { input = 1.0, output = 2.0 }
[backends.actor]
provider = "scripted"
tier = "local"
models = { "llama-3.1-8b" = {} }
[backends.double]
provider = "vllm"
base_url = "http://127.0.0.1:9/v1"
tier = "local"
stand_in = true
models = { "llama-3.1-8b" = {} }
"""
QUESTION = {"model": "auto", "messages": [{"role": "user", "content": "Who wrote Faust?"}]}


def config_of(router: str) -> Config:
    return parse_config(f"{router}\n{BACKENDS}", {"KEY": "k"})


def with_cards(artefact: Path, cards: str = "") -> Config:
    return config_of(f'[router]\nartefact = "{artefact}"\n{cards}')


def test_each_target_gets_the_card_that_knows_most(artefact: Path, listed: Cards) -> None:
    cards = build_cards(with_cards(artefact))
    assert cards["ward/special"] == listed.cards["ward/special"]
    assert cards["ollama/llama3.1:8b"].like == "llama-3.1-8b-instruct"
    assert cards["ollama/qwen2.5:72b"].origin == "prior"
    assert cards["gemini/gemini-1.5-pro-002"].base == "frontier"
    # A name that tells nothing, an unlisted frontier model, and what is no model.
    assert cards.keys() == {
        "ward/special",
        "ollama/llama3.1:8b",
        "ollama/qwen2.5:72b",
        "gemini/gemini-1.5-pro-002",
    }


def test_the_configured_card_comes_first(artefact: Path) -> None:
    cards = build_cards(
        with_cards(
            artefact,
            """
            [router.cards]
            "ollama/tiny" = { like = "llama3.1:8b", offset = -0.3 }
            "ward/special" = { base = "local" }
            "gemini/gpt-4o" = { offset = 0.4 }
            "actor/llama-3.1-8b" = { like = "llama-3.1-8b-instruct" }
            "ollama/qwen2.5:72b" = { base = "frontier", offset = -0.1 }
            """,
        )
    )
    tiny = cards["ollama/tiny"]
    assert (tiny.origin, tiny.like) == ("configured", "llama-3.1-8b-instruct")
    assert tiny.offset == pytest.approx(-0.4)
    assert (cards["ward/special"].offset, cards["ward/special"].slope) == (0.0, 1.0)
    assert (cards["gemini/gpt-4o"].base, cards["gemini/gpt-4o"].offset) == ("frontier", 0.4)
    assert cards["actor/llama-3.1-8b"].offset == pytest.approx(-0.1)
    assert cards["ollama/qwen2.5:72b"].base == "frontier"


@pytest.mark.parametrize(
    ("card", "path", "message"),
    [
        ('"ollama/none" = { offset = 1 }', "router.cards.ollama/none", "has no model 'none'"),
        ('"nowhere/m" = { offset = 1 }', "router.cards.nowhere/m", "unknown backend 'nowhere'"),
        ('"ollama/tiny" = {}', "router.cards.ollama/tiny", "needs like, offset or base"),
        (
            '"ollama/tiny" = { ofset = 1 }',
            "router.cards.ollama/tiny.ofset",
            "did you mean 'offset'",
        ),
        ('"ollama/tiny" = { offset = 9 }', "router.cards.ollama/tiny.offset", "between -6 and 6"),
        ('"ollama/tiny" = { offset = nan }', "router.cards.ollama/tiny.offset", "between -6 and 6"),
        ('"ollama/tiny" = { base = "x" }', "router.cards.ollama/tiny.base", "enum"),
        (
            '"ollama/tiny" = { base = "local", like = "m" }',
            "router.cards.ollama/tiny.base",
            "one of the two",
        ),
    ],
)
def test_a_card_that_cannot_be_names_its_path(card: str, path: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(f"[router.cards]\n{card}")
    assert caught.value.path == path
    assert message in caught.value.message


def test_an_unknown_like_stops_the_check_and_lists_near_names(
    artefact: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEY", "k")
    file = tmp_path / "gateway.toml"
    head = f'[router]\nartefact = "{artefact}"\n[router.cards."ollama/tiny"]\n'
    file.write_text(f'{head}like = "lama-3.1-8b"\n{BACKENDS}')
    assert main(["check", str(file)]) == 2
    said = capsys.readouterr().err
    assert "router.cards.ollama/tiny.like: no card 'lama-3.1-8b'; near:" in said
    assert "llama-3.1-8b-instruct" in said


def test_like_needs_an_artefact_that_lists_cards() -> None:
    config = config_of(
        '[router]\nartefact = "heuristic"\n[router.cards."ollama/tiny"]\nlike = "llama-3.1-8b"'
    )
    with pytest.raises(ConfigError, match="lists none"):
        build_cards(config)


def test_a_sum_out_of_range_is_an_error(artefact: Path) -> None:
    config = with_cards(
        artefact, '[router.cards."ollama/tiny"]\nlike = "llama-3.1-8b"\noffset = -6'
    )
    with pytest.raises(ConfigError, match=r"router\.cards\.ollama/tiny\.offset: offset must be"):
        build_cards(config)


def test_cards_that_cannot_be_read_stop_the_start_or_count_as_none(
    artefact: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (artefact / "cards.json").write_text('{"cards": {"m": {"slope": 0}}}')
    with pytest.raises(ConfigError, match=r"router\.artefact: cards\.json: slope must be above 0"):
        build_cards(with_cards(artefact))
    lenient = f'[router]\nartefact = "{artefact}"\non_missing = "unclassified"'
    assert build_cards(config_of(lenient)) == {}
    assert "no model has a card" in caplog.text


def test_without_an_artefact_only_what_is_configured_counts() -> None:
    given = '[router]\nartefact = "heuristic"\n[router.cards."ollama/tiny"]\noffset = -1'
    assert build_cards(config_of(given)).keys() == {"ollama/tiny"}
    assert build_cards(config_of('[router]\nartefact = "none"')) == {}


@pytest.mark.parametrize("env", [{}, {"OPENAI_API_KEY": "k"}, {"ANTHROPIC_API_KEY": "k"}])
def test_the_demo_has_no_cards(env: dict[str, str], tmp_path: Path) -> None:
    keys = {"main": "th-aaaaaaaaaaaa-" + "a" * 43, "poor": "th-bbbbbbbbbbbb-" + "b" * 43}
    config, _ = demo_config(env, "http://127.0.0.1:9/v1", keys, str(tmp_path), 4100)
    assert build_cards(config) == {}


def test_the_admin_api_shows_each_models_card(artefact: Path) -> None:
    catalog = build_catalog(with_cards(artefact), {}, UpstreamTransport())
    rows = {row["name"]: row["cards"] for row in catalog.snapshot()}
    assert rows["ollama"]["tiny"] is None
    assert rows["ollama"]["llama3.1:8b"]["like"] == "llama-3.1-8b-instruct"
    assert rows["ward"]["special"]["origin"] == "fitted"
    assert catalog.cards == build_cards(with_cards(artefact))


def test_check_shows_the_cards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "k")
    file = tmp_path / "gateway.toml"
    head = '[router]\nartefact = "heuristic"\n[router.cards."ollama/tiny"]\noffset = -1\n'
    file.write_text(head + BACKENDS)
    assert main(["check", str(file)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "ollama/tiny configured: local -1.00" in said
    assert "gemini/gpt-4o its tier's" in said


async def test_a_card_changes_the_decision_and_explain_says_so() -> None:
    two = """
    [backends.a]
    provider = "scripted"
    tier = "local"
    models = { m = {} }
    [backends.b]
    provider = "scripted"
    tier = "frontier"
    models = { m = { input = 1.0, output = 1.0 } }
    """
    heuristic = '[router]\nartefact = "heuristic"\n'
    plain = await explain_offline(parse_config(heuristic + two), QUESTION)
    assert plain["plan"][0]["backend"] == "a"
    assert plain["cards"] == {"a/m": None, "b/m": None}
    assert "model cards" not in plain["text"]
    weak = heuristic + '[router.cards."a/m"]\noffset = -4\n'
    carded = await explain_offline(parse_config(weak + two), QUESTION)
    assert carded["plan"][0]["backend"] == "b"
    assert carded["score"]["p_ok"]["a/m"] < 0.5 < carded["score"]["p_local_ok"]
    assert carded["cards"] == {"a/m": "configured: local -4.00", "b/m": None}
    assert "a/m  ok 0." in carded["text"]
    assert "configured: local -4.00" in carded["text"]


def test_an_activated_refit_brings_its_own_cards(
    artefact: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = with_cards(
        artefact,
        """
        [router.cards]
        "ollama/tiny" = { like = "llama3.1:8b" }
        "gemini/gpt-4o" = { offset = 0.4 }
        """,
    )
    refit = tmp_path / "refit"
    refit.mkdir()
    mine = Card(offset=0.9, origin="fitted", rows=40)
    (refit / "cards.json").write_bytes(encode_cards(Cards(cards={"ward/special": mine})))
    cards = activated_cards(config, refit)
    assert cards["ward/special"] == mine
    assert cards["gemini/gpt-4o"].offset == 0.4
    # What the refit does not list is judged by its tier.
    assert (cards["ollama/tiny"].base, cards["ollama/tiny"].offset) == ("local", 0.0)
    assert "router.cards.ollama/tiny.like" in caplog.text
    assert cards.keys() == {"ward/special", "gemini/gpt-4o", "ollama/tiny"}
    catalog = build_catalog(config, {}, UpstreamTransport())
    catalog.use_cards(cards)
    assert catalog.cards == cards
    (refit / "cards.json").write_text("{")
    with pytest.raises(CardError, match=r"cards\.json"):
        activated_cards(config, refit)
