"""Committees on made-up sentence vectors: what is fitted, what is held out, what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from routers.onnx.committee import (
    ASIDE,
    CLIP,
    GAIN,
    LOCAL,
    MEMBERS,
    NEIGHBOURS,
    SHAPES,
    Committee,
    Views,
)
from routers.refit.committee import (
    SLOPE_PRIOR,
    Fitted,
    Labels,
    _logistic_line,
    _ridges,
    _straight_line,
    fit_committee,
)
from routers.refit.run import cross_validate
from tests.routers_refit.conftest import Scene


def rows_of(views: Views, index: Any) -> Views:
    return Views(
        *(None if array is None else array[index] for array in msgspec.structs.astuple(views))
    )


def committee_of(fitted: Fitted) -> Committee:
    return Committee(fitted.arrays, fitted.kernels)


@pytest.mark.parametrize("hidden", [0.0, 0.3])
def test_held_predictions_are_those_of_fits_without_the_row(scene: Scene, hidden: float) -> None:
    views, labels = scene(60, hidden)
    rng = np.random.default_rng(1)
    ridge = rng.uniform(1.0, 5.0, size=60)
    cosines = (views.sentences @ views.sentences.T).astype(np.float64)
    gram = np.exp(6.0 * (cosines - 1))
    targets = [labels.target(LOCAL), labels.target(GAIN)]
    known = [np.flatnonzero(~np.isnan(target)) for target in targets]
    members = _ridges(gram, targets, known, ridge)
    for member, target, rows in zip(members, targets, known, strict=True):
        for i in range(60):
            rest = rows[rows != i]
            inner = gram[np.ix_(rest, rest)] + np.diag(ridge[rest])
            dual = np.linalg.solve(inner, target[rest] - member.start)
            assert member.held[i] == pytest.approx(gram[i, rest] @ dual + member.start, abs=1e-6)


def by_the_book(fitted: Fitted, views: Views) -> tuple[NDArray[Any], NDArray[Any]]:
    """What the docstring of Committee says, one row and one target at a time."""
    a = {name: array.astype(np.float64) for name, array in fitted.arrays.items()}
    found, shares = [], []
    for row in range(len(views.sentences)):
        shown = (views.sentences, views.surfaces, views.topics, views.below)
        sentence, surface, topic, below = (array[row].astype(np.float64) for array in shown)
        logit = a["gate"] @ np.concatenate([sentence, surface, [1.0]])
        home = max(0.0, (1 / (1 + np.exp(-logit)) - ASIDE) / (1 - ASIDE))
        away = below if views.away is None else views.away[row]
        beneath = home * below + (1 - home) * away
        cosine = a["memory"] @ sentence
        near = np.exp(fitted.kernels.near * (cosine - 1))
        square = ((a["shapes"] - surface) ** 2).mean(axis=1)
        shape = np.exp(-fitted.kernels.shape * square)
        low, high = a["familiar"]
        share = (np.sort(cosine)[-NEIGHBOURS:].mean() - low) / (high - low)
        share = np.clip(share, 0, 1) * home
        said = []
        for which in (LOCAL, GAIN):
            sign = -1.0 if which == LOCAL else 1.0
            members = [
                a["near"][which] @ near + a["start"][which, 0],
                a["shape"][which] @ shape + a["start"][which, 1],
                a["topic"][which] @ topic + a["start"][which, 2],
                sign * surface[0],
                below[which],
            ]
            deviation = (np.array(members) - a["centre"][which]) / a["spread"][which]
            total = np.clip(deviation, -CLIP, CLIP) @ a["weight"][which]
            own = a["line"][which, 0] + a["line"][which, 1] * total
            said.append(share * own + (1 - share) * beneath[which])
        found.append(said)
        shares.append(share)
    return np.array(found), np.array(shares)


@pytest.mark.parametrize("below", [False, True])
def test_a_committee_says_what_its_description_says(scene: Scene, below: bool) -> None:
    views, labels = scene(80)
    others, _ = scene(40, seed=5)
    soft = np.zeros(12 + 6 + 1)
    soft[12] = 2.0  # the first surface feature tells kinds apart, but not for certain
    for gate in (None, soft):
        fitted = fit_committee(views, labels, belows=(below,), gate=gate)
        for asked in (views, others, msgspec.structs.replace(others, away=others.below + 3)):
            said, share = committee_of(fitted).predict(asked)
            expected, expected_share = by_the_book(fitted, asked)
            assert said == pytest.approx(expected, abs=1e-3)
            assert share == pytest.approx(expected_share, abs=1e-4)


def test_members_that_learn_nothing_are_standardised_over_the_rows(scene: Scene) -> None:
    views, labels = scene(150)
    a = fit_committee(views, labels).arrays
    for which, sign in ((LOCAL, -1.0), (GAIN, 1.0)):
        columns = {"length": sign * views.surfaces[:, 0], "below": views.below[:, which]}
        for name, said in columns.items():
            member = MEMBERS.index(name)
            assert a["centre"][which, member] == pytest.approx(said.mean(), abs=1e-4)
            assert a["spread"][which, member] == pytest.approx(said.std(), abs=1e-4)


def test_the_label_of_a_row_that_nobody_believes_changes_nothing(scene: Scene) -> None:
    views, labels = scene(150)
    weight = np.where(np.arange(150) < 100, 1.0, 1e-7)
    flipped = np.where(weight < 1, 1 - labels.local, labels.local)
    said = [
        committee_of(fit_committee(views, Labels(local, labels.frontier, weight))).predict(views)[0]
        for local in (labels.local, flipped)
    ]
    assert np.abs(said[0] - said[1]).max() < 0.06


def test_one_row_is_said_the_same_of_alone(scene: Scene) -> None:
    views, labels = scene()
    committee = committee_of(fit_committee(views, labels))
    together = committee.predict(views)[0]
    alone = np.concatenate([committee.predict(rows_of(views, [i]))[0] for i in range(120)])
    assert np.allclose(together, alone, atol=1e-4)


def test_rows_of_the_memory_are_known_better_than_held_ones(scene: Scene) -> None:
    views, labels = scene(200)
    fitted = fit_committee(views, labels)
    said, share = committee_of(fitted).predict(views)
    # Each row is in the memory, so its nearest neighbour is itself.
    assert share.mean() > 0.5
    assert committee_of(fitted).rows == 200
    held = cross_validate(views, labels, seed=0)
    errors = [
        ((1 / (1 + np.exp(-logit)) - labels.local) ** 2).mean()
        for logit in (said[:, LOCAL], held[:, LOCAL])
    ]
    level = labels.local.mean()
    assert errors[0] < errors[1] < level * (1 - level)
    assert np.corrcoef(held[:, LOCAL], views.sentences[:, 0])[0, 1] > 0.25


def test_a_text_unlike_every_row_is_left_to_the_heads_beneath(scene: Scene) -> None:
    views, labels = scene()
    committee = committee_of(fit_committee(views, labels))
    away = rows_of(views, slice(0, 10))
    # Opposite to what it was near to, in a memory that lies all around: unlike everything.
    far = msgspec.structs.replace(away, sentences=np.zeros_like(away.sentences))
    said, share = committee.predict(far)
    assert (share == 0).all()
    assert np.array_equal(said, far.below)


def test_a_text_of_another_kind_is_left_to_the_heads_for_those(scene: Scene) -> None:
    views, labels = scene()
    gate = np.zeros(12 + 6 + 1)
    gate[12] = 40.0  # the first surface feature tells the kinds apart
    committee = committee_of(fit_committee(views, labels, gate=gate))
    kind = np.where(np.arange(120) < 60, -1.0, 1.0).astype(np.float32)
    surfaces = views.surfaces.copy()
    surfaces[:, 0] = kind
    both = msgspec.structs.replace(views, surfaces=surfaces, away=views.below + 7)
    said, share = committee.predict(both)
    assert share[:60].max() < 1e-6
    assert said[:60] == pytest.approx(both.below[:60] + 7, abs=1e-4)
    assert share[60:].max() > 0.9


def test_an_unknown_frontier_label_is_no_label(scene: Scene) -> None:
    views, labels = scene(150, hidden=0.4)
    fitted = fit_committee(views, labels)
    unknown = np.isnan(labels.frontier)
    assert 20 < unknown.sum() < 100
    assert (fitted.arrays["near"][GAIN][unknown] == 0).all()
    assert (fitted.arrays["near"][LOCAL][unknown] != 0).all()
    assert np.isfinite(committee_of(fitted).predict(views)[0]).all()


def test_labels_of_one_class_give_a_level_and_no_order(scene: Scene) -> None:
    views, labels = scene()
    same = Labels(np.ones(120), np.ones(120))
    said, _ = committee_of(fit_committee(views, same, belows=(False,))).predict(views)
    assert np.isfinite(said).all()
    full = fit_committee(views, labels, belows=(False,))
    ordered, _ = committee_of(full).predict(views)
    known = committee_of(full).predict(views)[1] == 1
    assert said[known, GAIN].std() < 0.1 * ordered[known, GAIN].std()


def test_a_target_without_two_labels_is_an_error(scene: Scene) -> None:
    views, labels = scene(20)
    hidden = np.full(20, np.nan)
    hidden[3] = 1.0
    for bad in (Labels(labels.local, hidden), Labels(hidden, labels.frontier)):
        with pytest.raises(ValueError, match="at least two labels"):
            fit_committee(views, bad)
    with pytest.raises(ValueError, match="nothing to try"):
        fit_committee(views, labels, nears=())


def test_fitting_repeats(scene: Scene) -> None:
    views, labels = scene(hidden=0.2)
    first, second = fit_committee(views, labels), fit_committee(views, labels)
    assert first.kernels == second.kernels
    assert all(np.array_equal(first.arrays[k], second.arrays[k]) for k in first.arrays)


def test_doubted_rows_set_neither_level_nor_limits(scene: Scene) -> None:
    views, labels = scene(200)
    weight = np.where(np.arange(200) < 150, 1.0, 0.01)
    lies = labels.local.copy()
    lies[150:] = 1 - lies[150:]
    doubted = fit_committee(views, Labels(lies, labels.frontier, weight))
    believed = fit_committee(views, Labels(lies, labels.frontier))
    truth = fit_committee(views, labels)
    sure = rows_of(views, slice(0, 150))
    said = [committee_of(fitted).predict(sure)[0] for fitted in (doubted, believed, truth)]
    gap = [np.abs(each - said[2]).mean() for each in said[:2]]
    assert gap[0] < 0.5 * gap[1]


def test_a_row_that_stands_for_many_sets_the_level_by_their_number(scene: Scene) -> None:
    views, labels = scene(200)
    weight = np.where(labels.local > 0.5, 9.0, 1.0)
    expected = np.average(labels.local, weights=weight)
    mean = []
    for believed in (weight, None):
        held = cross_validate(views, Labels(labels.local, labels.frontier, believed), seed=0)
        mean.append(np.average(1 / (1 + np.exp(-held[:, LOCAL])), weights=weight))
    assert mean[0] == pytest.approx(expected, abs=0.02)
    assert mean[1] < expected - 0.1


@pytest.mark.parametrize("heavy", [1.0, 5.0])
def test_the_lines_have_the_level_of_the_labels_and_their_slope(heavy: float) -> None:
    rng = np.random.default_rng(3)
    total = 2 * rng.normal(size=4000) + 1
    weight = np.where(np.arange(4000) % 2, heavy, 1.0)
    p = 1 / (1 + np.exp(-0.8 * total + 1.5))
    good = (rng.random(4000) < p).astype(float)
    start, slope = _logistic_line(total, good, weight)
    said = 1 / (1 + np.exp(-start - slope * total))
    assert np.average(said, weights=weight) == pytest.approx(np.average(good, weights=weight))
    assert (start, slope) == pytest.approx((-1.5, 0.8), abs=0.1)
    gain = 0.1 * total - 0.2 + 0.3 * rng.normal(size=4000)
    start, slope = _straight_line(total, gain, weight)
    assert np.average(start + slope * total, weights=weight) == pytest.approx(
        np.average(gain, weights=weight)
    )
    assert (start, slope) == pytest.approx((-0.2, 0.1), abs=0.02)
    # Where the labels do not rise with what is said, the order of what is said is kept.
    assert 0 < _logistic_line(-total, good, weight)[1] < 1e-3
    assert 0 < _straight_line(-total, gain, weight)[1] < 1e-3


def test_few_rows_promise_half_of_the_gain_that_they_show() -> None:
    total = np.tile([-1.0, 1.0], round(SLOPE_PRIOR) // 2)
    start, slope = _straight_line(total, 0.4 * total + 0.1, np.ones(len(total)))
    assert (start, slope) == pytest.approx((0.1, 0.2))


@pytest.mark.parametrize("name", SHAPES)
def test_arrays_of_another_shape_are_refused(scene: Scene, name: str) -> None:
    fitted = fit_committee(*scene(30))
    whole = dict(fitted.arrays)
    # Another width of vectors, number of features or topics is another artefact's, and seen where
    # the heads are put together.
    elsewhere = name in ("memory", "shapes", "topic")
    short = whole[name][:-1] if elsewhere else whole[name][..., :-1]
    for bad in (short, whole[name][None], whole[name] * np.nan):
        with pytest.raises(ValueError, match=r"has \d|no number"):
            Committee({**whole, name: bad}, fitted.kernels)
    del whole[name]
    with pytest.raises(ValueError, match=f"lacks the array '{name}'"):
        Committee(whole, fitted.kernels)


def test_a_spread_of_nothing_is_refused(scene: Scene) -> None:
    fitted = fit_committee(*scene(30))
    arrays = {**fitted.arrays, "spread": np.zeros((2, len(MEMBERS)))}
    with pytest.raises(ValueError, match="spread must be above 0"):
        Committee(arrays, fitted.kernels)


def test_the_heads_beneath_are_heard_of_the_target_they_know(scene: Scene) -> None:
    views, labels = scene(200)
    noise = np.random.default_rng(7).normal(size=200)
    for known in (LOCAL, GAIN):
        # The other target's column says the opposite of the truth.
        signs = [1.0 if target == known else -1.0 for target in (LOCAL, GAIN)]
        columns = [sign * labels.target(i) + 0.3 * noise for i, sign in enumerate(signs)]
        below = np.stack(columns, axis=1).astype(np.float32)
        fitted = fit_committee(msgspec.structs.replace(views, below=below), labels)
        heard = fitted.arrays["weight"][:, MEMBERS.index("below")]
        assert heard[known] == 1.0
        assert heard[1 - known] == 0.0
