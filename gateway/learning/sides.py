"""Whose answers a label can be of that does not say so."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.catalog import Target
from gateway.config.model import ShadowConfig
from routers.cards import Base
from routers.types import Policy

_TEXT = frozenset({"chat", "completions"})


def sole_sides(
    target: str, targets: Iterable[Target], policies: Iterable[Policy], shadow: ShadowConfig
) -> tuple[Base, ...]:
    """The sides on which `target` (`backend/model`) is the only model that answers: no policy has
    another one in its weak tier (`local`) or in its strong tier (`frontier`), and answers of no
    other one are bought for comparison."""
    tiers: dict[Base, set[str]] = {"local": set(), "frontier": set()}
    for policy in policies:
        tiers["local"].add(policy.weak_tier)
        tiers["frontier"].add(policy.strong_tier)
    found: dict[Base, set[str]] = {"local": set(), "frontier": set()}
    for each in targets:
        for base in tiers:
            if each.tier in tiers[base] and each.profile.capabilities & _TEXT:
                found[base].add(each.id)
    if shadow.backend:
        found["frontier"].add(shadow.backend)
    return tuple(base for base, models in found.items() if models == {target})
