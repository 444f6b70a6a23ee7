"""The tiny model's training data and chat template: well-formed without torch or a tokenizer."""

import json
import random
import sys
from itertools import pairwise

import pytest

from backends.local import dialogues, generate_tiny

SAMPLES = 400


@pytest.fixture(scope="module")
def samples() -> list[dialogues.Dialogue]:
    rng = random.Random(7)
    return [dialogues.sample(rng) for _ in range(SAMPLES)]


def test_the_same_seed_gives_the_same_dialogues(samples: list[dialogues.Dialogue]) -> None:
    rng = random.Random(7)
    assert [dialogues.sample(rng) for _ in range(SAMPLES)] == samples


def test_roles_alternate_and_the_assistant_has_the_last_word(
    samples: list[dialogues.Dialogue],
) -> None:
    for dialogue in samples:
        roles = [m["role"] for m in dialogue.messages if m["role"] != "system"]
        assert roles[0] == "user"
        assert roles[-1] == "assistant"
        for before, after in pairwise(roles):
            assert (before == "assistant") == (after in {"user", "tool"}) or before == "tool"
        assert all(isinstance(m["content"], str) for m in dialogue.messages)
        assert not any("{" in m["content"] for m in dialogue.messages if m["role"] == "user")


def test_tool_calls_fit_the_tools_on_offer(samples: list[dialogues.Dialogue]) -> None:
    called = 0
    for dialogue in samples:
        offered = {t["function"]["name"]: t["function"]["parameters"] for t in dialogue.tools}
        for message in dialogue.messages:
            for call in message.get("tool_calls", []):
                called += 1
                assert call["type"] == "function"
                json.dumps(call["function"]["arguments"])
                if offered:
                    schema = offered[call["function"]["name"]]
                    assert set(call["function"]["arguments"]) == set(schema["required"])
    assert called > 50


def test_json_answers_parse(samples: list[dialogues.Dialogue]) -> None:
    answers = [m["content"] for d in samples for m in d.messages if m["role"] == "assistant"]
    objects = [json.loads(text) for text in answers if text.startswith("{")]
    assert len(objects) > 20
    assert all(isinstance(value, dict) for value in objects)


def test_the_template_renders_every_kind_of_turn() -> None:
    pytest.importorskip("jinja2")
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    text = generate_tiny.Renderer()(
        dialogues.Dialogue(
            [
                {"role": "system", "content": "Be brief."},
                dialogues.user("Add 1."),
                dialogues.assistant("", tool_calls=[call], reasoning_content="Hm."),
                {"role": "tool", "content": "1"},
                dialogues.assistant("One."),
            ],
            [dialogues.tool_schema("add", "Adds", {"a": "integer"})],
        )
    )
    assert text.startswith("<|im_start|>system\nBe brief.\n\n<tools>\nadd(a): {")
    assert text.count("<|im_start|>") == text.count("<|im_end|>") == 5
    assert '<think>\nHm.\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}' in text
    assert "<|im_start|>user\n<tool_response>\n1\n</tool_response><|im_end|>" in text
    assert text.endswith("<|im_start|>assistant\nOne.<|im_end|>\n")


def test_without_the_extra_the_generator_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("jinja2", "tokenizers", "torch", "gguf"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit, match=r"pip install 'tollhouse\[train\]'"):
        generate_tiny.main(["unused.gguf"])
