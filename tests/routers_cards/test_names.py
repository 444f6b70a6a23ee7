"""What names say: one model under many spellings, sizes, and names that say nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routers.modelnames import FAMILIES, canonical, loose, traits

LLAMA = [
    "llama3.1:8b",
    "meta-llama/Llama-3.1-8B-Instruct",
    "Meta-Llama-3_1-8B-Instruct",
    "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf",
    "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4",
    "neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8",
    "meta-llama/llama-3.1-8b-instruct:free",
    "llama-3.1-8b-instant",
]


@pytest.mark.parametrize("name", LLAMA)
def test_one_model_under_many_names(name: str) -> None:
    assert loose(name) == "llama 3.1 8b"
    assert traits(name).params == 8
    assert traits(name).year == 2024.5


@pytest.mark.parametrize(
    ("name", "params", "active"),
    [
        ("qwen2.5:0.5b-instruct-q4_0", 0.5, None),
        ("smollm2:135m", 0.135, None),
        ("mixtral:8x7b", 46.7, 46.7 / 4),
        ("qwen3:30b-a3b", 30, 3),
        ("gpt-oss:20b", 20.9, 3.6),
        ("phi3:mini", 3.8, None),
        ("microsoft/phi-4", 14, None),
        ("deepseek-ai/DeepSeek-V3", 671, 37),
        ("deepseek-r1:7b", 7, None),
        ("command-r-plus", 104, None),
        ("some-finetune-13b", 13, None),
    ],
)
def test_sizes(name: str, params: float, active: float | None) -> None:
    found = traits(name)
    assert found.params == pytest.approx(params, rel=0.01)
    assert found.active == (None if active is None else pytest.approx(active, rel=0.01))


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o",
        "gpt-4o-mini",
        "gpt-4-1106-preview",
        "o1-mini",
        "claude-3-5-haiku-20241022",
        "claude-sonnet-4-5",
        "gemini-1.5-flash-002",
        "tiny",
        "scripted:latency=120ms",
        "model-99999999999b",
        "",
        "/",
        "b",
    ],
)
def test_names_that_tell_no_size(name: str) -> None:
    assert traits(name).size is None


def test_a_mixture_counts_for_less_than_its_parameters() -> None:
    size = traits("mixtral-8x7b-instruct-v0.1").size
    assert size is not None
    assert 12 < size < 46


def test_a_generation_is_no_revision() -> None:
    assert loose("DeepSeek-V2") != loose("DeepSeek-V3")
    assert loose("mistral-7b-instruct-v0.2") == loose("mistral:7b")
    assert loose("llama-3.1-8b-base") != loose("llama-3.1-8b")
    assert loose("qwen2.5-coder:7b") != loose("qwen2.5:7b")


def test_the_longest_family_wins() -> None:
    assert traits("llama-3.1-8b").family == "llama 3.1"
    assert traits("llama-3.1-nemotron-51b-instruct").family == "llama 3.1 nemotron"
    # A prefix ends at a token: this is no Llama 3.
    assert traits("llama-30b").family == ""
    assert len({family.prefix for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert canonical(family.prefix.replace(" ", "-")) == family.prefix


@given(st.text(max_size=200))
def test_any_name_is_survived(name: str) -> None:
    size = traits(name).size
    assert size is None or size > 0
    assert len(loose(name)) <= len(canonical(name)) <= 2 * len(name.lower())
