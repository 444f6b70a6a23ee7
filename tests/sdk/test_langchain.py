"""The standard chat-model integration tests of `langchain-tests`, with `langchain-openai` through
the gateway to the scripted upstream.

What the suite skips here: PDF, audio and picture tool messages and Anthropic's content blocks,
which the chat dialect has no form for, and the timing test, which needs recorded cassettes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.support import PLAIN, Gateway

pytestmark = [
    # The SDK's parsed answers are typed as having nothing parsed; pydantic says so when
    # langchain-openai copies them.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    # Said of the suite's own old-style schema, before langchain-openai does what it advises.
    pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning"),
]


class TestThroughTheGateway(ChatModelIntegrationTests):
    @pytest.fixture
    async def model(self) -> AsyncIterator[BaseChatModel]:
        """With HTTP clients of the test's own: those that the package shares between models
        belong to the event loop of the first test and are never closed."""
        with httpx.Client(**PLAIN) as sync:
            async with httpx.AsyncClient(**PLAIN) as own:
                yield ChatOpenAI(
                    **self.chat_model_params,
                    http_client=sync,
                    http_async_client=own,
                )

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # langchain-openai asks for usage in streams by itself only at OpenAI's own address.
        return {"model": "scripted", "stream_usage": True, "max_retries": 0, "timeout": 30}

    @property
    def model_override_value(self) -> str:
        # The suite looks for it in the answer, which names the model that answered; so the alias
        # has the upstream's name of its model.
        return "scripted:latency=0"

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch: pytest.MonkeyPatch, tollhouse: Gateway, png: bytes) -> None:
        """One test makes a model of its own, as an application does: key and address come from
        the environment. The suite downloads its picture; any will do, and the network is off."""
        monkeypatch.setenv("OPENAI_API_KEY", tollhouse.key)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{tollhouse.url}/v1")

        def get(url: str, **_: Any) -> httpx.Response:
            assert url.startswith("https://raw.githubusercontent.com/"), url
            return httpx.Response(200, content=png)

        monkeypatch.setattr(httpx, "get", get)
