"""How long a stream may take to begin: as configured, else by what is known of the model."""

from __future__ import annotations

import pytest

from backends.http import UpstreamTransport
from gateway.compose import build_catalog
from gateway.config import parse_config

BACKEND = """
[backends.b]
provider = "openai"
api_key = "${{KEY}}"
timeouts = {{ {timeouts} }}
models.{model} = {{ {upstream} input = 1.0, output = 1.0 }}
"""


def first_token(model: str, *, upstream: str = "", timeouts: str = "total = 120.0") -> float:
    said = f'upstream = "{upstream}",' if upstream else ""
    text = BACKEND.format(model=model, upstream=said, timeouts=timeouts)
    (target,) = build_catalog(
        parse_config(text, {"KEY": "sk-test"}), {}, UpstreamTransport()
    ).targets
    assert target.timeouts.total == 120.0
    return target.timeouts.first_token


@pytest.mark.parametrize("model", ["o3", "o4-mini", "gpt-5", "gpt-5-mini"])
def test_a_model_that_reasons_in_silence_may_take_the_whole_time(model: str) -> None:
    assert first_token(model) == 120.0
    assert first_token("thinker", upstream=model) == 120.0


@pytest.mark.parametrize("model", ["gpt-4o", "o", "omni"])
def test_others_begin_soon(model: str) -> None:
    assert first_token(model) == 15.0


@pytest.mark.parametrize("model", ["o3", "gpt-4o"])
def test_what_is_configured_holds(model: str) -> None:
    assert first_token(model, timeouts="first_token = 40.0, total = 120.0") == 40.0
