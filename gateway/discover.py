"""A configuration without a file: local engines on their usual ports, frontier APIs by their
usual environment variables."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec

from backends.http import UpstreamTransport, make_endpoint
from backends.prices import load_prices
from backends.providers import Provider, load_providers
from gateway.auth import SecretFileError, load_or_create_secret, new_key, parse_key
from gateway.config import Config, ConfigError
from gateway.config.load import default_policy
from gateway.config.model import BackendConfig, EngineConfig, KeyConfig, ModelConfig

ON_PREMISES = "on-premises"
LOCAL_FACTS = {"jurisdiction": ON_PREMISES}
_PROBE_SECONDS = 1.0
T = TypeVar("T")


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class _Tag(msgspec.Struct):
    name: str
    remote_host: str = ""


class _Tags(msgspec.Struct):
    models: list[_Tag]


_models = msgspec.json.Decoder(_Models)
_tags = msgspec.json.Decoder(_Tags)


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
            listed = await _probe(provider)
            elsewhere = await _handed_on(provider, listed)
            models = [model for model in listed if model not in elsewhere]
            if models:
                backends[name] = _local(name, provider, models)
                notes.append(f"{name}: {', '.join(models)} on port {provider.local_port}")
            if elsewhere:
                left_out = ", ".join(sorted(elsewhere))
                notes.append(f"{name}: {left_out} left out: run by servers elsewhere, not here")
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
    found = await _get(provider, "/v1/models", _models)
    return [row.id for row in found.data] if found is not None else []


async def _handed_on(provider: Provider, models: list[str]) -> set[str]:
    """Those of an engine's models that are not run on this machine: by their names and, for copies
    under other names, by Ollama's own list (`remote_host` in its `/api/tags`)."""
    if not provider.handed_on or not models:
        return set()
    named = {model for model in models if provider.hands_on(model)}
    found = await _get(provider, "/api/tags", _tags)
    listed = {row.name for row in found.models if row.remote_host} if found is not None else set()
    return named | listed.intersection(models)


async def _get(provider: Provider, path: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    """What a local engine says there; None when nothing answers, or something else."""
    url = f"http://127.0.0.1:{provider.local_port}{path}"
    transport = UpstreamTransport()
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            response = await transport.send(
                make_endpoint(url, method="GET"), b"", connect=_PROBE_SECONDS
            )
            body = await response.read(1 << 20)
        return decoder.decode(body) if response.status == 200 else None
    except (httpx.HTTPError, TimeoutError, msgspec.DecodeError):
        # Nothing there, or not an engine that speaks this API: not found.
        return None
    finally:
        await transport.aclose()
