"""A configuration without a file: local engines on their usual ports, frontier APIs by their
usual environment variables."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import httpx
import msgspec

from backends.http import UpstreamTransport, make_endpoint
from backends.prices import load_prices
from backends.providers import Provider, load_providers
from gateway.auth import SecretFileError, load_or_create_secret, new_key, parse_key
from gateway.config import Config, ConfigError
from gateway.config.load import default_policy
from gateway.config.model import BackendConfig, EngineConfig, KeyConfig, ModelConfig

LOCAL_FACTS = {"jurisdiction": "on-premises"}
_PROBE_SECONDS = 1.0


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


_models = msgspec.json.Decoder(_Models)


async def discover(
    env: Mapping[str, str], data_dir: str, local_model: str | None = None
) -> tuple[Config, list[str]]:
    """The configuration that `tollhouse serve` has without a file, with its client key, and a line
    about each thing found. Raises ConfigError."""
    config, notes = await found(env, local_model)
    keys = (KeyConfig(key=first_key(Path(data_dir))),)
    return msgspec.structs.replace(config, data_dir=data_dir, keys=keys), notes


async def found(env: Mapping[str, str], local_model: str | None = None) -> tuple[Config, list[str]]:
    """The same without a key: nothing is made for it."""
    backends: dict[str, BackendConfig] = {}
    notes: list[str] = []
    if local_model is not None:
        name = Path(local_model).stem
        backends["local"] = embedded(local_model, name)
        notes.append(f"local/{name}: {local_model} in the embedded engine")
    for name, provider in load_providers().items():
        if provider.local_port is not None:
            models = await _probe(provider)
            if models:
                backends[name] = _local(name, provider, models)
                notes.append(f"{name}: {', '.join(models)} on port {provider.local_port}")
        elif provider.key_env and env.get(provider.key_env):
            backend = _frontier(name, provider, env[provider.key_env])
            if backend is not None:
                backends[name] = backend
                notes.append(f"{name}: {', '.join(backend.models)} by {provider.key_env}")
    if not any(b.tier == "local" for b in backends.values()):
        notes.append("no local engine; give one with --local-model FILE.gguf")
    if not any(b.tier == "frontier" for b in backends.values()):
        notes.append("no frontier API; set OPENAI_API_KEY, ANTHROPIC_API_KEY or another")
    return Config(backends=backends, policies={"default": default_policy()}), notes


def first_key(data_dir: Path) -> str:
    """The key of a gateway without configuration, made on its first start. Raises ConfigError."""
    file = data_dir / "client-key"
    try:
        key = load_or_create_secret(file, new_key).decode("ascii", "replace")
    except SecretFileError as exc:
        raise ConfigError("data_dir", str(exc)) from exc
    if parse_key(key) is None:
        raise ConfigError("data_dir", f"{file} holds no key (th-...): delete it to have one made")
    return key


def embedded(model: str, name: str) -> BackendConfig:
    """A GGUF file in the embedded engine. `model` empty means the shipped tiny one."""
    return BackendConfig(
        provider="embedded",
        tier="local",
        facts=LOCAL_FACTS,
        engine=EngineConfig(model=model),
        models={name: ModelConfig(input=0.0, output=0.0)},
    )


def _local(name: str, provider: Provider, models: list[str]) -> BackendConfig:
    return BackendConfig(
        provider=name,
        base_url=f"http://127.0.0.1:{provider.local_port}/v1",
        tier="local",
        facts=LOCAL_FACTS,
        models={m: ModelConfig(input=0.0, output=0.0) for m in models},
    )


def _frontier(name: str, provider: Provider, key: str) -> BackendConfig | None:
    """None for a provider of which no price is known: it would be spending blindly."""
    models = sorted(
        {r.model for r in load_prices().rows if r.provider == name and "*" not in r.model}
    )
    if not models:
        return None
    facts = {"jurisdiction": provider.jurisdiction} if provider.jurisdiction else {}
    return BackendConfig(
        provider=name,
        api_key=key,
        facts=facts,
        models={model: ModelConfig() for model in models},
    )


async def _probe(provider: Provider) -> list[str]:
    """Models of an engine on its usual port; empty when nothing answers there."""
    url = f"http://127.0.0.1:{provider.local_port}/v1/models"
    transport = UpstreamTransport()
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            response = await transport.send(
                make_endpoint(url, method="GET"), b"", connect=_PROBE_SECONDS
            )
            body = await response.read(1 << 20)
        if response.status != 200:
            return []
        return [row.id for row in _models.decode(body).data]
    except (httpx.HTTPError, TimeoutError, msgspec.DecodeError):
        # Nothing there, or not an engine that speaks this API: not found.
        return []
    finally:
        await transport.aclose()
