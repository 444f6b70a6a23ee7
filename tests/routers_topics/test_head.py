"""The head at run time: shapes, sums over fields, words, arrays."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from routers.onnx.heads import HeadModel, load_heads
from routers.onnx.router import DEFAULT_ARTEFACT
from routers.onnx.topics import LinearHead, TopicHead, WordTable, from_arrays, term_ids
from routers.train.discriminant import fit_head


def small() -> LinearHead:
    weights = np.array([[4.0, 0.0], [0.0, 4.0], [-4.0, -4.0]])
    return LinearHead(("a", "b"), (0, 1, 1), weights, np.zeros(3))


def shares(head: LinearHead, sentences):
    odds = head.odds(sentences)
    return odds / odds.sum(axis=1, keepdims=True)


def test_a_label_is_the_sum_over_its_fields():
    head = small()
    found = shares(head, np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)
    assert found.argmax(axis=1).tolist() == [0, 1, 1]
    even = shares(head, np.zeros((1, 2)))[0]
    np.testing.assert_allclose(even, [1 / 3, 2 / 3], rtol=1e-5)


@pytest.mark.parametrize(
    ("groups", "weights", "bias"),
    [((0, 1), (3, 2), 3), ((0, 1, 1), (3, 2), 2), ((0, 0, 0), (3, 2), 3), ((0, 1, 2), (3, 2), 3)],
)
def test_shapes_that_do_not_fit_are_refused(groups, weights, bias):
    with pytest.raises(ValueError, match=r"fields|label"):
        LinearHead(("a", "b"), groups, np.zeros(weights), np.zeros(bias))


def test_words_move_the_answer():
    keys = np.array(term_ids("hearsay"), dtype=np.uint32)
    head = TopicHead(small(), WordTable(np.array([[0.0], [9.0]]), keys), 1.0, 1.0)
    vector = np.array([[0.4, 0.0]])
    [plain, worded] = head.surest(np.repeat(vector, 2, axis=0), ["nothing", "Hearsay!"])
    assert plain[0] == "a"
    assert worded[0] == "b"
    assert worded[1] > 0.9


def test_a_hotter_head_is_less_sure_and_answers_the_same():
    vector = np.array([[1.0, 0.2]])
    [cold] = TopicHead(small(), None, 0.0, 1.0).surest(vector, [""])
    [hot] = TopicHead(small(), None, 0.0, 3.0).surest(vector, [""])
    assert cold[0] == hot[0]
    assert cold[1] > hot[1]


def test_the_surest_label_has_its_share_of_all():
    head = TopicHead(small(), None, 0.0, 2.0)
    vector = np.array([[1.0, 0.2]])
    shares = np.exp(head.logits(vector, [""])[0] / 2.0)
    [(label, p)] = head.surest(vector, [""])
    assert head.labels.index(label) == shares.argmax()
    assert p == pytest.approx(shares.max() / shares.sum(), rel=1e-5)


def test_below_the_floor_there_is_no_label():
    shipped = load_heads(DEFAULT_ARTEFACT)
    sentence = np.full((1, shipped.width), shipped.width**-0.5, dtype=np.float32)
    found = {}
    for floor in (0.0, 1.01):
        heads = msgspec.structs.replace(shipped.heads, topics=dict.fromkeys(shipped.topics, floor))
        found[floor] = HeadModel(heads, shipped.arrays).name_topics(sentence, ["any"])
    assert found[1.01] == {name: [None] for name in shipped.topics}
    assert all(label in shipped.topics[name].labels for name, [label] in found[0.0].items())


@pytest.mark.parametrize(
    "text", ["", "\x00\x01", "١٢٣ ½ 🦊", "​‮" * 400, "a" * 100_000, "word " * 200_000]
)
def test_any_text_has_finite_scores(text):
    keys = np.array(term_ids("word worth"), dtype=np.uint32)
    scores = WordTable(np.ones((3, 3)), keys).scores([text])
    assert scores.shape == (1, 3)
    assert np.isfinite(scores).all()


def test_words_are_cut_like_the_text_of_the_encoder():
    head, tail = "alpha " * 100, "omega " * 100
    middle = term_ids(head + "hidden " * 400 + tail)
    assert middle == term_ids(head[:400] + "\n" + tail[-200:])
    assert not set(term_ids("hidden")) & set(middle)


def test_a_head_without_temperature_or_with_other_words_is_refused():
    with pytest.raises(ValueError, match="temperature"):
        TopicHead(small(), None, 0.0, 0.0)
    with pytest.raises(ValueError, match="labels"):
        TopicHead(small(), WordTable(np.zeros((3, 8)), np.arange(8, dtype=np.uint32)), 1.0, 1.0)


def test_arrays_come_back_as_the_same_head(taught, recipe):
    vectors, rows = taught
    head, _ = fit_head(vectors, rows, recipe, 1)
    back = from_arrays(head.arrays())
    texts = [row.text for row in rows]
    found, expected = back.surest(vectors, texts), head.surest(vectors, texts)
    assert [label for label, _ in found] == [label for label, _ in expected]
    np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], atol=0.01)
    assert back.labels == head.labels
    assert back.width == vectors.shape[1]


def test_a_missing_array_is_named(taught, recipe):
    arrays = fit_head(*taught, recipe, 1)[0].arrays()
    del arrays["bias"]
    with pytest.raises(ValueError, match="bias"):
        from_arrays(arrays)
