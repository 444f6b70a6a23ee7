"""Fitting heads: what is learnt, what is held out, what is refused."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from routers.train.discriminant import TopicError, TopicRow, fit_head, folds


def accuracy(found, rows, labels):
    truth = [labels.index(row.label) for row in rows]
    return float((found.argmax(axis=1) == truth).mean())


def test_held_out_rows_are_found(taught, recipe):
    vectors, rows = taught
    plain = msgspec.structs.replace(recipe, least=0)
    head, held = fit_head(vectors, rows, plain, 1)
    assert accuracy(held, rows, head.labels) > 0.85
    np.testing.assert_allclose(held.sum(axis=1), 1.0, rtol=1e-4)


def test_a_label_of_opposite_fields_needs_its_fields(taught, recipe):
    vectors, rows = taught
    plain = msgspec.structs.replace(recipe, least=0)
    blurred = [msgspec.structs.replace(row, field="all") for row in rows]
    sharp, coarse = (fit_head(vectors, part, plain, 1)[1] for part in (rows, blurred))
    labels = tuple(plain.prior)
    assert accuracy(sharp, rows, labels) > accuracy(coarse, rows, labels) + 0.1


def test_words_alone_tell_labels_apart(taught, recipe):
    vectors, rows = taught
    head, held = fit_head(np.zeros_like(vectors) + 1e-3, rows, recipe, 1)
    assert accuracy(held, rows, head.labels) == 1.0


def test_labels_that_are_noise_get_no_confidence(taught, recipe):
    vectors, rows = taught
    shuffle = np.random.default_rng(3).permutation(len(rows))
    wrong = [
        msgspec.structs.replace(row, label=rows[i].label, field=rows[i].field, text="same")
        for row, i in zip(rows, shuffle, strict=True)
    ]
    _, held = fit_head(vectors, wrong, recipe, 1)
    assert held.max() < 0.7


def test_the_same_rows_give_the_same_head(taught, recipe):
    first, second = (fit_head(*taught, recipe, 4)[0].arrays() for _ in range(2))
    for name in first:
        assert first[name].tobytes() == second[name].tobytes()


def test_a_group_stands_on_one_side_of_every_split():
    rows = [TopicRow("q", "a", "f", "s", 1.0, f"g{i // 2}") for i in range(200)]
    found = folds(rows, 9)
    assert (found[::2] == found[1::2]).all()
    assert set(found.tolist()) == {0, 1, 2, 3, 4}
    assert folds([TopicRow("term", "a", "f", "lexicon")], 9).tolist() == [-1]


def test_rows_without_a_group_are_only_learnt_from(taught, recipe):
    vectors, rows = taught
    rows = [*rows, TopicRow("a term", "law", "crimes", "lexicon")]
    _, held = fit_head(np.vstack([vectors, vectors[:1]]), rows, recipe, 1)
    assert np.isnan(held[-1]).all()
    assert np.isfinite(held[:-1]).all()


def test_any_width_will_do(taught, recipe):
    vectors, rows = taught
    for width in (2, 7, 64):
        wide = vectors @ np.random.default_rng(0).normal(size=(vectors.shape[1], width))
        head, _ = fit_head(wide, rows, recipe, 1)
        assert head.width == width


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:-1], "sentence vectors"),
        (lambda rows: [msgspec.structs.replace(rows[0], label="x"), *rows[1:]], "row 1: the label"),
        (lambda rows: [msgspec.structs.replace(rows[0], weight=0.0), *rows[1:]], "row 1: the wei"),
        (lambda rows: [msgspec.structs.replace(r, label="law") for r in rows], "no rows for"),
        (lambda rows: [msgspec.structs.replace(r, group=None) for r in rows], "held out"),
    ],
)
def test_rows_that_cannot_teach_are_refused(taught, recipe, change, said):
    vectors, rows = taught
    with pytest.raises(TopicError, match=said):
        fit_head(vectors, change(rows), recipe, 1)
