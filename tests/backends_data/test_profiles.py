from __future__ import annotations

import pytest

from backends import profiles
from backends.profiles import CAPABILITIES, UNKNOWN, find_profile, output_limit


def test_every_row_is_sound() -> None:
    for pattern, profile in profiles._ROWS:
        assert profile.capabilities <= CAPABILITIES, pattern
        assert profile.known and profile.context_window > 0, pattern
        assert pattern == pattern.lower()
        if profile.thinking in ("effort", "adaptive"):
            assert profile.efforts, pattern
        generates = profile.capabilities & {"chat", "completions"}
        assert bool(generates) == (profile.max_output > 0), pattern


@pytest.mark.parametrize(
    ("model", "window", "tokenizer"),
    [
        ("gpt-4o-mini", 128_000, "o200k_base"),
        ("GPT-4", 8192, "cl100k_base"),
        ("o3-mini", 200_000, "o200k_base"),
        ("claude-sonnet-4-5-20250929", 200_000, ""),
        ("anthropic.claude-opus-5-5", 1_000_000, ""),
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo", 131_072, ""),
    ],
)
def test_known_models(model: str, window: int, tokenizer: str) -> None:
    profile = find_profile(model)
    assert (profile.context_window, profile.tokenizer) == (window, tokenizer)


def test_the_most_specific_claude_wins() -> None:
    assert find_profile("claude-opus-5-5").forced_tools is False
    assert find_profile("claude-opus-5").forced_tools is True
    assert find_profile("claude-sonnet-5-5").thinking_off == "between_tools"
    assert "json_schema" not in find_profile("claude-3-5-haiku-latest").capabilities


def test_unknown_models_are_held_to_little() -> None:
    assert find_profile("made-up") is UNKNOWN and not UNKNOWN.known
    assert "tools" not in UNKNOWN.capabilities and "vision" not in UNKNOWN.capabilities


def test_output_limit() -> None:
    assert output_limit({"max_tokens": 5, "max_completion_tokens": 7}, UNKNOWN) == 7
    assert output_limit({"max_tokens": 5}, UNKNOWN) == 5
    assert output_limit({"max_tokens": None}, UNKNOWN) == UNKNOWN.max_output
    assert output_limit({"max_tokens": True}, UNKNOWN) == UNKNOWN.max_output
