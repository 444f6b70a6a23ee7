from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.auth import (
    check_config_keys,
    config_principal,
    format_key,
)
from gateway.config import Config, ConfigError
from gateway.config.model import AuthConfig, KeyConfig, ScopeConfig
from gateway.ledger import Budget, Limits, Scope

KEY = format_key("abcdefghijkl", "s" * 43)


def config(key: dict[str, Any] | None = None, *scopes: ScopeConfig) -> Config:
    return Config(keys=(KeyConfig(**({"key": KEY} | (key or {}))),), scopes=scopes)


def test_a_principal_carries_the_labels_and_scopes_around_the_key() -> None:
    principal = config_principal(
        config(
            {"org": "acme", "team": "red", "labels": ("eu",), "budget_usd": 1.5, "window": "day"},
            ScopeConfig("org:acme", labels=("confidential",), requests_per_minute=10),
            ScopeConfig("team:red", labels=("phi",)),
            ScopeConfig("team:blue", labels=("us",), budget_usd=1),
        ),
        "abcdefghijkl",
    )
    assert principal.labels == {"eu", "confidential", "phi"}
    assert principal.scopes == (
        Scope("key:abcdefghijkl", Budget(1_500_000_000, "day")),
        Scope("org:acme", None, Limits(requests_per_minute=10)),
    )


def test_the_order_is_key_team_org() -> None:
    principal = config_principal(
        config(
            {"team": "red", "concurrency": 1},
            ScopeConfig("org:default", budget_usd=0.000000001),
            ScopeConfig("team:red", budget_usd=9_000_000),
        ),
        "abcdefghijkl",
    )
    assert [scope.id for scope in principal.scopes] == [
        "key:abcdefghijkl",
        "team:red",
        "org:default",
    ]
    assert [scope.budget.limit for scope in principal.scopes if scope.budget] == [
        9_000_000_000_000_000,
        1,
    ]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"key": "th-nope"}, "keys[0].key"),
        ({"org": ""}, "keys[0].org"),
        ({"org": "a b"}, "keys[0].org"),
        ({"team": "../x"}, "keys[0].team"),
        ({"labels": ("ok", "Not OK")}, "keys[0].labels[1]"),
        ({"allow": ("a/b'--",)}, "keys[0].allow[0]"),
        ({"tags": ("",)}, "keys[0].tags[0]"),
        ({"user": "x\n"}, "keys[0].user"),
        ({"concurrency": 0}, "keys[0].concurrency"),
        ({"window": "9" * 30}, "keys[0].window"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config_keys(config(given))
    assert caught.value.path == path


def test_a_key_that_is_nearly_one_is_told_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match="12 lower-case letters and digits"):
        check_config_keys(config({"key": format_key("Abcdefghijkl", "s" * 43)}))


def test_two_keys_may_not_share_a_public_id() -> None:
    twice = msgspec.structs.replace(config(), keys=(KeyConfig(KEY), KeyConfig(KEY)))
    with pytest.raises(ConfigError, match=r"keys\[1\]\.key"):
        check_config_keys(twice)


def test_a_scope_may_not_be_given_twice() -> None:
    twice = config({}, ScopeConfig("org:a"), ScopeConfig("org:a"))
    with pytest.raises(ConfigError, match=r"scopes\[1\]\.id"):
        check_config_keys(twice)


def test_a_guessable_hash_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"auth\.hash_key"):
        check_config_keys(Config(auth=AuthConfig(hash_key="short")))
