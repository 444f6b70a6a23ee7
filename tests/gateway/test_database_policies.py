"""Where the policies stand in the database, the file names those: its own are the first seed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.admission import _resolve
from gateway.auth import Principal, new_key
from gateway.catalog import UnknownModel
from gateway.config import ConfigError, parse_config
from gateway.errors import GatewayError
from gateway.inbound import Controls
from gateway.policies import UnknownPolicy
from tests.support import Gateway, Upstream, config_for

SOURCE = '\n[policy]\nsource = "database"\n'
ASKED = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}


def moved(config: str, first: Gateway) -> str:
    return config.replace('data_dir = "data"', f'data_dir = "{first.folder / "data"}"')


@pytest.mark.parametrize("source", ["file", "database"])
@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('[[keys]]\nkey = "${KEY}"\npolicy = "weak"', "keys[0].policy"),
        ('[aliases]\ncheap = "auto:weak"', "aliases.cheap"),
        ('[policy]\ndefault = "weak"', "policy.default"),
    ],
)
def test_the_loader_knows_only_the_files_policies(source: str, text: str, path: str) -> None:
    whole = text if "[policy]" in text else f"{text}\n[policy]"
    whole = whole.replace("[policy]", f'[policy]\nsource = "{source}"')
    if source == "database":
        parse_config(whole, {"KEY": "x"})
        return
    with pytest.raises(ConfigError) as caught:
        parse_config(whole, {"KEY": "x"})
    assert caught.value.path == path


def test_the_file_names_policies_of_the_database(
    serve: Callable[..., Gateway], upstream: Upstream
) -> None:
    config = config_for(upstream.url) + SOURCE
    keys = {"main": new_key()}
    first = serve(config, keys=keys)
    with first.admin() as admin:
        for name, route in (("cheap", "weak"), ("dear", "strong")):
            body = {"policy": {"route": route, "cache_ttl": 0}}
            headers = {"if-none-match": "*"}
            admin.put(f"/policies/{name}", json=body, headers=headers).raise_for_status()
    assert first.stop() == 0

    named = moved(config, first) + 'default = "dear"\n[aliases]\nsmall = "auto:cheap"\n'
    second = serve(named, keys=keys)
    with second.client() as client:
        tiers = [
            client.post("/v1/chat/completions", json={**ASKED, "model": model}).headers[
                "x-tollhouse-tier"
            ]
            for model in ("auto", "small")
        ]
    assert tiers == ["frontier", "local"]
    assert second.stop() == 0

    # In the file, and not in the database, which was seeded before.
    late = '\n[policies.late]\nroute = "weak"\n'
    bound = moved(config, first).replace('key = "${MAIN}"', 'key = "${MAIN}"\npolicy = "late"')
    with pytest.raises(AssertionError, match=r"(?s)ended with 2:.*keys\[0\]\.policy: no policy"):
        serve(bound + late, keys=keys)


def resolve(principal: Principal, controls: Controls, default: str = "default") -> GatewayError:
    """What is said to a request where only the policy `default` exists."""

    def get(name: str) -> Any:
        if name != "default":
            raise UnknownPolicy(name)
        return SimpleNamespace(policy=object())

    def model(name: str) -> Any:
        if name == "auto":
            return None, None
        raise UnknownModel(name)

    runtime: Any = SimpleNamespace(
        catalog=SimpleNamespace(resolve=model),
        policies=SimpleNamespace(get=get),
        config=SimpleNamespace(policy=SimpleNamespace(default=default)),
    )
    inbound: Any = SimpleNamespace(model="auto", controls=controls)
    with pytest.raises(GatewayError) as caught:
        _resolve(runtime, inbound, principal)
    return caught.value


def test_only_a_policy_that_the_client_named_is_its_mistake() -> None:
    asked = resolve(Principal(), Controls(policy="nope"))
    assert (asked.status, asked.param) == (400, "x-tollhouse-policy")
    bound = resolve(Principal(policy="gone"), Controls())
    assert (bound.status, bound.param, bound.code) == (503, None, "policy_unavailable")
    assert "'gone'" in bound.message
    # Without its own policy, nothing says what the one that it names may not undo.
    default = resolve(Principal(), Controls(policy="default"), default="gone")
    assert (default.status, default.code) == (503, "policy_unavailable")
