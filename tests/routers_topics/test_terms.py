"""The table of terms: which are kept, what they count, and what the correction does."""

from __future__ import annotations

import numpy as np
import pytest

from routers.onnx.topics import WordTable, from_arrays, term_ids
from routers.train.discriminant import fit_head
from routers.train.terms import bags, correction, known, minimise, naive_bayes


def terms(*texts):
    return [np.array(term_ids(text), dtype=np.uint32) for text in texts]


def keys(text):
    return np.array(term_ids(text), dtype=np.uint32)


def test_a_pair_is_a_term_of_its_own_and_has_an_order():
    assert len(term_ids("there fore")) == 3
    assert set(term_ids("there")) | set(term_ids("fore")) < set(term_ids("there fore"))
    assert not set(term_ids("therefore")) & set(term_ids("there fore"))
    assert term_ids("there fore") != term_ids("fore there")


def test_only_known_terms_speak_and_count():
    table = WordTable(np.array([[6.0, 6.0, 6.0]]), keys("cold fusion"))
    assert table.scores(["Cold fusion"])[0, 0] == pytest.approx(18.0 / 3**0.5)
    assert table.scores(["cold beer, warm fusion"])[0, 0] == pytest.approx(12.0 / 2**0.5)
    assert table.scores(["warm beer", "", "\uffff"]).tolist() == [[0.0]] * 3


def test_keys_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 terms"):
        WordTable(np.ones((2, 3)), np.array([1, 2], dtype=np.uint32))
    with pytest.raises(ValueError, match="ascend"):
        WordTable(np.ones((2, 3)), np.array([1, 3, 2], dtype=np.uint32))


def test_a_head_without_the_keys_of_its_terms_is_refused(taught, recipe):
    vectors, rows = taught
    arrays = dict(fit_head(vectors, rows, recipe, 1)[0].arrays())
    del arrays["keys"]
    with pytest.raises(ValueError, match="keys"):
        from_arrays(arrays)


def test_a_term_of_one_group_is_not_kept_however_often_it_stands():
    found = known(terms("osmosis", "osmosis", "habeas", "habeas"), ["a", "a", "b", "c"], 2)
    assert found.tolist() == term_ids("habeas")
    assert len(known(terms("osmosis", "habeas"), ["a", "b"], 2)) == 0


def test_scores_and_sums_are_one_matrix_and_its_transpose():
    texts = ("red fox", "red", "blue", "green fox red fox")
    part = bags(terms(*texts), keys("red fox"))
    dense = part.scores(np.eye(part.columns))
    assert dense.shape == (4, 3)
    np.testing.assert_allclose((dense**2).sum(axis=1), [1.0, 1.0, 0.0, 1.0])
    noise = np.random.default_rng(2).normal(size=(4, 5))
    np.testing.assert_allclose(part.sums(noise), noise.T @ dense)
    np.testing.assert_allclose(part.take(np.array([1, 3])).scores(np.eye(3)), dense[[1, 3]])


def test_the_table_scores_at_run_time_as_it_was_fitted():
    texts = ("the red fox runs", "the blue whale swims", "red whale")
    table = np.random.default_rng(3).normal(size=(2, len(keys(texts[0]))))
    fitted = bags(terms(*texts), keys(texts[0])).scores(table)
    np.testing.assert_allclose(
        WordTable(table, keys(texts[0])).scores(texts), fitted, rtol=1e-5, atol=1e-6
    )


def test_the_minimum_of_a_bent_valley_is_found():
    bend = np.diag([1.0, 100.0, 0.5]) + 0.3
    aim = np.array([3.0, -2.0, 7.0])

    def loss(place):
        slope = bend @ (place - aim)
        return float(0.5 * (place - aim) @ slope), slope

    np.testing.assert_allclose(minimise(loss, np.zeros(3), 60), aim, atol=1e-4)
    assert minimise(loss, aim, 5).tolist() == aim.tolist()


def test_the_correction_mends_what_naive_bayes_counts_twice():
    """Two terms that always stand together are one piece of evidence against a stronger third."""
    texts = ["hither thither"] * 30 + ["hither thither yonder"] * 20 + ["yonder"] * 10
    label = np.array([0] * 30 + [1] * 20 + [1] * 10)
    held = bags(terms(*texts), known(terms(*texts), [str(i) for i in range(60)], 2))
    weight = np.ones(60)
    table = naive_bayes(held, label, weight, 2, 1.0)

    def lost(found):
        logits = held.scores(found)
        return float((np.logaddexp.reduce(logits, axis=1) - logits[np.arange(60), label]).mean())

    moved = correction(held, label, weight, held.scores(table), 0.01, 40)
    assert lost(table + moved) < 0.5 * lost(table)
    tied = correction(held, label, weight, held.scores(table), 1e6, 40)
    assert np.abs(tied).max() < 1e-3


def test_texts_without_a_common_term_give_a_head_without_a_table(taught, recipe):
    vectors, rows = taught
    bare = [type(r)(f"{n:x}", r.label, r.field, r.source, 1.0, r.group) for n, r in enumerate(rows)]
    head, held = fit_head(vectors, bare, recipe, 1)
    assert np.isfinite(held).all()
    back = from_arrays(head.arrays())
    assert back.words is None
    any_text = ["any"] * len(rows)
    np.testing.assert_allclose(
        back.logits(vectors, any_text), head.logits(vectors, any_text), atol=0.05
    )
