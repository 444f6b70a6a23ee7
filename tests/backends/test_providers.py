from __future__ import annotations

import msgspec
import pytest

from backends.dialects.chat import ChatBackend, ChatSettings
from backends.http import UpstreamTransport
from backends.providers import Provider, load_providers

NAMES = (
    "anthropic deepseek fireworks gemini groq llamacpp lmstudio mistral ollama openai openrouter "
    "sglang tgi together vllm xai"
)


def test_the_shipped_table() -> None:
    providers = load_providers()
    assert " ".join(sorted(providers)) == NAMES
    for provider in providers.values():
        local = provider.local_port is not None
        assert provider.base_url.startswith("http://127.0.0.1:" if local else "https://")
        assert local == (provider.key_env is None)
    assert [n for n, p in providers.items() if p.dialect == "messages"] == ["anthropic"]


@pytest.mark.parametrize("name", [n for n, p in load_providers().items() if p.dialect == "chat"])
def test_every_chat_row_makes_a_backend(name: str) -> None:
    row = load_providers()[name]
    settings = ChatSettings(name, row.base_url, api_key="k", quirks=row.quirks)
    assert ChatBackend(settings, UpstreamTransport(), lambda: 0.0).name == name


@pytest.mark.parametrize("line", ["base_urls = 'x'", "quirks = { drop = [] }", "dialect = 'grpc'"])
def test_a_typo_is_an_error_with_its_place(line: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$"):
        load_providers(f"[x]\nbase_url = 'http://x'\n{line}\n")
    assert load_providers("[x]\nbase_url = 'http://x'\n") == {"x": Provider("http://x")}
