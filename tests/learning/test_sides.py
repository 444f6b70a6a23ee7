"""Of which side a model is the only one that answers."""

from __future__ import annotations

import pytest

from backends.http import UpstreamTransport
from gateway.compose import build_catalog
from gateway.config import parse_config
from gateway.learning.sides import sole_sides
from routers.types import Policy

M = "m = { input = 1.0, output = 1.0 }"
PLACES = {
    "home": ("local", M),
    "attic": ("local", M),
    "vectors": ("local", 'm = { input = 1.0, output = 1.0, capabilities = ["embeddings"] }'),
    "edge": ("edge", M),
    "ohio": ("frontier", M),
    "paris": ("frontier", M),
}


@pytest.mark.parametrize(
    ("names", "policies", "bought", "target", "sides"),
    [
        ("home ohio", [Policy()], "", "home/m", ("local",)),
        ("home ohio", [Policy()], "", "ohio/m", ("frontier",)),
        ("home ohio", [Policy()], "", "home/n", ()),
        # Another model of the tier; one of a tier that some policy has there; one for embeddings.
        ("home attic ohio", [Policy()], "", "home/m", ()),
        ("home edge ohio", [Policy()], "", "home/m", ("local",)),
        ("home edge ohio", [Policy(), Policy(weak_tier="edge")], "", "home/m", ()),
        ("home edge ohio", [Policy(weak_tier="edge")], "", "home/m", ()),
        ("home vectors ohio", [Policy()], "", "home/m", ("local",)),
        # Answers of another one are bought for comparison.
        ("home ohio paris", [Policy()], "", "ohio/m", ()),
        ("home ohio", [Policy()], "home/m", "ohio/m", ()),
        ("home ohio", [Policy()], "ohio/m", "ohio/m", ("frontier",)),
        # The only one of both sides.
        (
            "edge",
            [Policy(weak_tier="edge", strong_tier="edge")],
            "",
            "edge/m",
            ("local", "frontier"),
        ),
    ],
)
async def test_a_side_has_one_model_or_several(
    names: str, policies: list[Policy], bought: str, target: str, sides: tuple[str, ...]
) -> None:
    text = ""
    for name in names.split():
        tier, models = PLACES[name]
        text += f"""
        [backends.{name}]
        provider = "vllm"
        base_url = "http://127.0.0.1:9/v1"
        tier = "{tier}"
        [backends.{name}.models]
        {models}
        """
    text += f'[learning.shadow]\nbackend = "{bought}"\n' if bought else ""
    config = parse_config(text, {})
    catalog = build_catalog(config, {}, UpstreamTransport())
    assert sole_sides(target, catalog.targets, policies, config.learning.shadow) == sides
    await catalog.aclose()
