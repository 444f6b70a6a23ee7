"""The demo's configuration: a real local engine, and a frontier that is real when a key is set."""

from __future__ import annotations

from collections.abc import Mapping

from backends.prices import load_prices
from backends.providers import load_providers
from gateway.config import Config
from gateway.config.load import check, default_policy
from gateway.config.model import (
    BackendConfig,
    KeyConfig,
    ModelConfig,
    ServerConfig,
)
from gateway.discover import LOCAL_FACTS

STAND_IN = "stand-in"
# Cheap models, in the order of preference; any other listed model of the provider will do.
_FRONTIERS = (("openai", "gpt-4o-mini"), ("anthropic", "claude-haiku-4-5"))


def frontier(env: Mapping[str, str]) -> tuple[str, BackendConfig]:
    """The first provider whose key is set; else a scripted stand-in, named so everywhere."""
    for name, model in _FRONTIERS:
        provider = load_providers()[name]
        key = env.get(provider.key_env or "")
        if key and load_prices().find(name, model) is not None:
            facts = {"jurisdiction": provider.jurisdiction or "us"}
            return name, BackendConfig(
                provider=name, api_key=key, facts=facts, models={model: ModelConfig()}
            )
    return STAND_IN, BackendConfig(
        provider="scripted",
        facts={"jurisdiction": "us"},
        stand_in=True,
        models={
            "scripted-frontier": ModelConfig(
                upstream="scripted:latency=120ms", input=2.5, output=10.0
            )
        },
    )


def demo_config(
    env: Mapping[str, str], engine_url: str, keys: dict[str, str], data_dir: str, port: int
) -> tuple[Config, str]:
    """The configuration and the id of the frontier candidate. `keys` has `main` and `poor`."""
    name, chosen = frontier(env)
    free = ModelConfig(input=0.0, output=0.0)
    config = Config(
        data_dir=data_dir,
        server=ServerConfig(port=port),
        backends={
            "local": BackendConfig(
                provider="llamacpp",
                base_url=engine_url,
                tier="local",
                facts=LOCAL_FACTS,
                models={"tiny": free},
            ),
            "local-messages": BackendConfig(
                provider="anthropic",
                base_url=engine_url,
                tier="local",
                facts=LOCAL_FACTS,
                models={"tiny": free},
            ),
            name: chosen,
        },
        policies={"default": default_policy()},
        keys=(
            KeyConfig(key=keys["main"], org="demo", team="tour", budget_usd=1.0, window="day"),
            KeyConfig(key=keys["poor"], org="demo", team="poor", budget_usd=0.0, window="day"),
        ),
    )
    check(config)
    return config, f"{name}/{next(iter(chosen.models))}"
