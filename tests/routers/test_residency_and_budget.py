from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routers.budget import budget_gap, curve_problem, pressure, usd
from routers.residency import LabelError, audit_required, cacheable, combine, residency_gap
from routers.types import Candidate, Policy, PressurePoint, Requirement

names = st.lists(st.sampled_from(("eu", "de", "phi", "x:1")))


@given(names, names, names)
def test_labels_only_add_up(
    mandatory: list[str], requested: list[str], detected: list[str]
) -> None:
    assert combine(mandatory, requested, detected) == {*mandatory, *requested, *detected}


@pytest.mark.parametrize("label", ["", "EU", "e u", "-eu", "eu\n", "ü", "a" * 65, "eu,de"])
def test_a_malformed_requested_label_is_named(label: str) -> None:
    with pytest.raises(LabelError) as caught:
        combine((), ("eu", label), ())
    assert repr(label) in str(caught.value)


def test_every_gap_closes() -> None:
    policy = Policy(
        labels={
            "eu": Requirement({"jurisdiction": ("eu", "de")}),
            "phi": Requirement(tiers=("local",), cache=False),
            "shut": Requirement({"jurisdiction": ()}),
            "lax": Requirement(audit=False),
        }
    )
    here = Candidate(backend="b", model="m", tier="local", facts={"jurisdiction": "de"})
    there = Candidate(backend="b", model="m", tier="frontier", facts={"jurisdiction": "us"})
    unstated = Candidate(backend="b", model="m", tier="local")
    assert residency_gap(here, ("eu", "phi", "lax"), policy) is None
    assert "'us'" in (residency_gap(there, ("eu",), policy) or "")
    assert "tier" in (residency_gap(there, ("phi",), policy) or "")
    assert "not stated" in (residency_gap(unstated, ("eu",), policy) or "")
    assert "not defined" in (residency_gap(here, ("eu", "mars"), policy) or "")
    assert residency_gap(here, ("shut",), policy) is not None
    assert [cacheable(x, policy) for x in ((), ("eu",), ("phi", "eu"), ("mars",))] == [
        True, True, False, False,
    ]  # fmt: skip
    assert [audit_required(x, policy) for x in ((), ("lax",), ("lax", "eu"), ("mars",))] == [
        False, False, True, True,
    ]  # fmt: skip


points = st.lists(
    st.builds(PressurePoint, left=st.floats(0, 1), raise_by=st.floats(0, 2)), max_size=5
)


@given(points, st.floats(0, 1), st.floats(0, 1))
def test_less_budget_never_presses_less(
    curve: list[PressurePoint], one: float, other: float
) -> None:
    less, more = sorted((one, other))
    assert pressure(curve, less) >= pressure(curve, more) - 1e-9
    assert 0 <= pressure(curve, less) <= max([p.raise_by for p in curve], default=0) + 1e-9
    assert pressure(curve, None) == 0


def test_the_curve_goes_through_its_points() -> None:
    curve = (PressurePoint(0.1, 0.5), PressurePoint(0.5, 0.1))
    found = [pressure(curve, left) for left in (1.0, 0.75, 0.5, 0.3, 0.1, 0.0, -1.0, float("nan"))]
    assert found == pytest.approx([0, 0.05, 0.1, 0.3, 0.5, 0.5, 0.5, 0.5])
    assert curve_problem(curve) is None
    whole = (PressurePoint(1.0, 0.0), PressurePoint(0.5, 0.5), PressurePoint(0.2, 0.5))
    assert curve_problem((*whole, PressurePoint(0.0, 2.0))) is None
    assert [pressure((PressurePoint(1.0, 0.3),), left) for left in (1.0, 0.5)] == [0.3, 0.3]
    assert pressure(curve, 1.5) == 0
    assert "falls" in (curve_problem((PressurePoint(0.1, 0.1), PressurePoint(0.5, 0.5))) or "")
    assert "share" in (curve_problem((PressurePoint(1.5, 0.1),)) or "")
    assert "between" in (curve_problem((PressurePoint(0.5, float("nan")),)) or "")
    assert "twice" in (curve_problem((PressurePoint(0.5, 0.1), PressurePoint(0.5, 0.2))) or "")


def test_money_is_exact() -> None:
    assert usd(450_000) == "$0.00045"
    assert [usd(n) for n in (0, 1, -2_500_000_000)] == ["$0.00", "$0.000000001", "-$2.50"]
    assert budget_gap(0, 0, -1) is None
    assert budget_gap(5, 5, 5) is budget_gap(5, 5, None) is None
    assert "limit" in (budget_gap(5, 4, None) or "")
    assert "left" in (budget_gap(5, None, 4) or "")
