"""The label algebra: which backends the labels of a request admit.

Everything fails closed: an unknown label, a fact that is not stated and a value that is not
listed all mean "not eligible". Adding a label can only take candidates away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from routers.types import Candidate, Policy, Requirement

_LABEL = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,63}")


class LabelError(ValueError):
    """A label that does not have the form of one. `label` is it, cut to 80 characters."""

    def __init__(self, label: str) -> None:
        self.label = label[:80]
        super().__init__(
            f"malformed residency label {self.label!r}: 1 to 64 of a-z, 0-9, '_', '.', ':', '-', "
            "beginning with a letter or digit"
        )


def check_label(label: str) -> str:
    """The label itself; raises LabelError when it is malformed."""
    if _LABEL.fullmatch(label) is None:
        raise LabelError(label)
    return label


def combine(
    mandatory: Iterable[str], requested: Iterable[str], detected: Iterable[str]
) -> frozenset[str]:
    """The union. Raises LabelError for a malformed requested label.

    Mandatory and detected labels come from configuration and are kept as they are: one that no
    policy lists makes every backend ineligible, which is the safe side.
    """
    return frozenset(mandatory).union((check_label(label) for label in requested), detected)


def residency_gap(candidate: Candidate, labels: Iterable[str], policy: Policy) -> str | None:
    """Why the labels do not admit this candidate; None when they do.

    With several reasons, the one of the alphabetically first label is given.
    """
    requirements = policy.labels
    for label in sorted(labels):
        requirement = requirements.get(label)
        if requirement is None:
            return f"label {label!r} is not defined in the policy"
        gap = _requirement_gap(candidate, requirement)
        if gap is not None:
            return f"label {label!r}: {gap}"
    return None


def _requirement_gap(candidate: Candidate, requirement: Requirement) -> str | None:
    if requirement.tiers and candidate.tier not in requirement.tiers:
        return f"tier is {candidate.tier!r}, must be {_one_of(requirement.tiers)}"
    facts = candidate.facts
    for fact, allowed in requirement.facts.items():
        value = facts.get(fact)
        if value is None:
            return f"{fact} is not stated, must be {_one_of(allowed)}"
        if value not in allowed:
            return f"{fact} is {value!r}, must be {_one_of(allowed)}"
    return None


def _one_of(values: tuple[str, ...]) -> str:
    return " or ".join(repr(value) for value in values) or "a value, but none is allowed"


def cacheable(labels: Iterable[str], policy: Policy) -> bool:
    """Whether answers under these labels may be cached. An unknown label: no."""
    requirements = policy.labels
    for label in labels:
        requirement = requirements.get(label)
        if requirement is None or not requirement.cache:
            return False
    return True


def audit_required(labels: Iterable[str], policy: Policy) -> bool:
    """Whether the decision is recorded before the first upstream byte. An unknown label: yes."""
    requirements = policy.labels
    for label in labels:
        requirement = requirements.get(label)
        if requirement is None or requirement.audit:
            return True
    return False
