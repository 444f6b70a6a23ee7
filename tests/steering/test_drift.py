from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest

from routers.drift import (
    BINS,
    MIN_ROWS,
    DriftError,
    DriftMonitor,
    dump_reference,
    load_reference,
    psi,
    reference_of,
)

DOMAINS = ("math", "law", "other")


@pytest.fixture
def rows():
    """Gains, domains and sentence vectors that lie about a direction."""

    def make(number, seed, mean=0.1, weights=(5, 3, 2), turn=0.0):
        rng, noise = Random(seed), np.random.default_rng(seed)
        gains = [max(-1.0, min(1.0, rng.gauss(mean, 0.1))) for _ in range(number)]
        domains = rng.choices(DOMAINS, weights, k=number)
        centre = np.zeros(384)
        centre[0], centre[1] = np.cos(turn), np.sin(turn)
        vectors = (centre + noise.normal(0, 0.1, (number, 384))).astype(np.float32)
        return gains, domains, vectors

    return make


@pytest.fixture
def watch(rows):
    def run(monitor, *args, **more):
        for gain, domain, vector in zip(*rows(*args, **more), strict=True):
            monitor.observe(gain, domain, vector)
        return monitor.report()

    return run


def test_the_same_traffic_does_not_drift(rows, watch):
    reference = reference_of(*rows(5000, 1))
    assert len(reference.shares) == BINS
    assert max(reference.shares) - min(reference.shares) < 0.01
    report = watch(DriftMonitor(reference), 2000, 2)
    assert report.rows == 2000
    assert report.gain < 0.03
    assert report.domain < 0.02
    assert report.embedding < 0.02
    assert not report.changed


@pytest.mark.parametrize(
    ("change", "field", "least"),
    [
        ({"mean": 0.25}, "gain", 0.5),
        ({"weights": (1, 1, 8)}, "domain", 0.5),
        ({"turn": 1.0}, "embedding", 0.3),
    ],
)
def test_each_kind_of_drift_is_seen_and_forgotten(rows, watch, change, field, least):
    monitor = DriftMonitor(reference_of(*rows(5000, 1)))
    watch(monitor, 2000, 2)
    moved = watch(monitor, 2000, 3, **change)
    assert getattr(moved, field) > least
    assert moved.changed == (field != "embedding")
    for other in {"gain", "domain", "embedding"} - {field}:
        assert getattr(moved, other) < 0.05
    back = watch(monitor, 2300, 4)
    assert not back.changed
    assert getattr(back, field) < 0.05


def test_a_domain_that_training_never_saw_is_drift(rows):
    monitor = DriftMonitor(reference_of(*rows(1000, 1)))
    for _ in range(500):
        monitor.observe(0.1, "astrology")
    assert monitor.report().domain > 1


def test_too_few_requests_say_nothing(rows, watch):
    monitor = DriftMonitor(reference_of(*rows(1000, 1)))
    report = watch(monitor, MIN_ROWS - 1, 2, mean=0.9)
    assert (report.gain, report.domain, report.embedding, report.changed) == (
        None,
        None,
        None,
        False,
    )
    monitor.observe(0.9, None)
    assert monitor.report().gain is not None
    assert monitor.report().domain is None


def test_what_the_reference_lacks_is_not_reported(rows, watch):
    gains, _, _ = rows(1000, 1)
    report = watch(DriftMonitor(reference_of(gains)), 500, 2)
    assert report.gain is not None
    assert report.domain is None and report.embedding is None


def test_texts_are_told_apart_by_where_they_lie_and_not_by_how_far_out(rows, watch):
    """The mean of sentence vectors is the shorter, the more the texts differ."""
    gains, domains, vectors = rows(1000, 1)
    near, far = (
        watch(DriftMonitor(reference_of(gains, domains, vectors * scale)), 500, 2, turn=1.0)
        for scale in (1.0, 0.3)
    )
    assert near.embedding == pytest.approx(1 - np.cos(1.0), abs=0.05)
    assert far.embedding == pytest.approx(near.embedding, abs=1e-3)


def test_gains_that_tie_make_fewer_bins():
    reference = reference_of([0.2] * 900 + [0.5] * 100)
    assert reference.edges == (0.5,)
    assert reference.shares == (0.9, 0.1)
    monitor = DriftMonitor(reference)
    for at in range(1000):
        monitor.observe(0.5 if at % 10 == 0 else 0.2, None)
    assert monitor.report().gain == pytest.approx(0, abs=1e-9)


def test_psi_is_the_published_sum_less_what_chance_shows():
    published = (0.3 - 0.5) * np.log(0.3 / 0.5) + (0.7 - 0.5) * np.log(0.7 / 0.5)
    half = {"a": 0.5, "b": 0.5}
    assert psi(half, {"a": 30, "b": 70}) == pytest.approx(published - 1 / 100)
    assert psi(half, {"a": 30, "b": 70}, 50) == pytest.approx(published - 1 / 100 - 1 / 50)
    assert psi(half, {"a": 51, "b": 49}) == 0
    assert psi({"a": 1.0}, {"a": 10}) == 0
    assert 1 < psi({"a": 1.0}, {"b": 100}) < 20


@pytest.mark.parametrize("number", [50, 100, 1000])
def test_a_small_reference_is_no_drift(rows, watch, number):
    """A refit may have fifty rows; what is asked is what they were drawn from."""
    reports = [
        watch(DriftMonitor(reference_of(*rows(number, seed))), 2000, 100 + seed)
        for seed in range(20)
    ]
    assert sum(report.changed for report in reports) <= 1
    assert np.mean([report.gain for report in reports]) < 0.1
    assert np.mean([report.domain for report in reports]) < 0.1


def test_rows_of_no_domain_tell_nothing_of_domains(rows):
    """In other languages than English many texts are of no domain for certain."""
    reports = []
    for seed in range(20):
        rng = Random(seed)

        def domains(number, rng=rng):
            return rng.choices([*"abcdefghij", *([None] * 10)], k=number)

        monitor = DriftMonitor(reference_of(rows(90, seed)[0], domains(90)))
        for gain, domain in zip(rows(2000, 100 + seed)[0], domains(2000), strict=True):
            monitor.observe(gain, domain)
        reports.append(monitor.report())
    assert sum(report.changed for report in reports) <= 1
    assert np.mean([report.domain for report in reports]) < 0.06


def test_a_reference_is_read_as_it_was_written(rows):
    reference = reference_of(*rows(500, 1))
    assert load_reference(dump_reference(reference)) == reference


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"edges": [0.1]}, "shares has 3 bins for 1 edges"),
        ({"edges": [0.2, 0.1]}, "edges"),
        ({"shares": [0.5, 0.5, 0.5]}, "shares"),
        ({"domains": {"law": 0.4}}, "domains"),
        ({"edge": []}, "edge"),
    ],
)
def test_a_wrong_reference_is_named(change, said):
    good = {"edges": [0.1, 0.2], "shares": [0.2, 0.3, 0.5], "domains": {"law": 1.0}}
    assert load_reference(json.dumps(good).encode()).shares == (0.2, 0.3, 0.5)
    with pytest.raises(DriftError, match=said):
        load_reference(json.dumps({**good, **change}).encode())


def test_too_few_rows_make_no_reference():
    with pytest.raises(DriftError, match="9 rows"):
        reference_of([0.1] * 9)
