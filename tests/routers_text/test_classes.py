"""The data-class model: what it finds, that all of a long text is read, that no text breaks it."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

np = pytest.importorskip("numpy")

from routers.onnx import tokens  # noqa: E402
from routers.onnx.classes import (  # noqa: E402 - numpy is needed first
    BEFORE,
    BITS,
    FEW,
    FILE,
    STRIDE,
    WINDOW,
    DataClassModel,
    load_classes,
    windows,
)
from routers.onnx.language import LanguageModel  # noqa: E402
from routers.onnx.manifest import ArtefactError  # noqa: E402
from routers.onnx.texts import TextModels, load_texts  # noqa: E402
from routers.onnx.tokens import (  # noqa: E402
    FEATURES,
    LEXICON_BITS,
    Tokens,
    slots_of,
    spans_of,
)
from routers.patterns import detect  # noqa: E402
from routers.train.class_fit import fit_classes  # noqa: E402
from routers.train.class_texts import Text  # noqa: E402
from routers.train.class_texts import load_texts as load_labelled  # noqa: E402
from routers.train.frames import PERSONAL, fill  # noqa: E402
from routers.train.lexicon import inside, lexicon_of  # noqa: E402
from routers.train.linear import Recipe, Window, fit_windows  # noqa: E402
from routers.train.prompts import IMPERSONAL, MEDICINE, REPLIES  # noqa: E402

NO_WORDS = np.zeros(1 << LEXICON_BITS, dtype=np.uint8)
ANYTHING = st.text(st.characters(), max_size=300)  # lone surrogates among them
NAMED = "My name is Anna Weber."
NOTE = "The patient denies chest pain and was given insulin for her hypertension."


def test_it_tells_what_it_was_shown(classes: DataClassModel) -> None:
    assert "pii" in classes.detect(NAMED)
    assert "phi" in classes.detect(NOTE)
    assert classes.detect("how many pens are there in total?") == frozenset()


@pytest.mark.parametrize("text", ["", "   ", "\t \r"])
def test_nothing_is_in_a_text_of_nothing(classes: DataClassModel, text: str) -> None:
    assert classes.predict(text) == {"phi": 0.0, "pii": 0.0}


@pytest.mark.parametrize(
    "text", ["\u200b" * 500, "\uffff\ufffe", "\U000e0041\U000e0042", "?!... --"]
)
def test_signs_alone_are_no_data_of_anybody(
    classes: DataClassModel, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So low that anything would be found.
    monkeypatch.setattr(classes, "_thresholds", dict.fromkeys(classes.thresholds, 1e-9))
    assert classes.detect(text) == frozenset()
    assert classes.detect(f"{text} Anna") == {"pii", "phi"}


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
def test_a_paragraph_is_found_anywhere_in_a_long_text(classes: DataClassModel, at: float) -> None:
    filler = ["how many pens are there in total?"] * 12_000
    assert classes.detect(" ".join(filler)) == frozenset()
    paragraph = "Please call Anna Weber back. Omar Haddad lives next door. " * 8
    filler[int(at * (len(filler) - 1))] = paragraph
    assert "pii" in classes.detect(" ".join(filler))


def test_windows_cover_every_token_and_their_number_is_bounded() -> None:
    for count in (1, STRIDE, WINDOW, WINDOW + 1, 3 * STRIDE, 1000, 500_000):
        found = windows(count)
        covered = np.zeros(count, dtype=bool)
        for start, end in found[:20]:
            covered[start:end] = True
        assert covered[: min(count, 20 * STRIDE)].all()
        assert found[-1][1] == count
        assert len(found) <= count / STRIDE + 1


@given(st.lists(st.sampled_from(["Anna", "insulin", "the", "pens", ".", "17"]), min_size=1,
                max_size=400))  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_the_score_is_that_of_the_highest_window(
    class_arrays: dict[str, Any], classes: DataClassModel, words: list[str]
) -> None:
    """As the formula says, one window, one table and one weight at a time."""
    found = Tokens(class_arrays["lexicon"]).features(" ".join(words))
    scale, bias = class_arrays["scale"].tolist(), class_arrays["bias"].tolist()
    weights, own = class_arrays["windows"], class_arrays["tokens"]
    sums = [
        sum(int(own[k][found[i - k] >> (32 - BITS)].sum()) for k in range(min(BEFORE, i) + 1))
        for i in range(len(found))
    ]
    slow = []
    for a, b in windows(len(found)):
        buckets = found[a:b].ravel() >> (32 - BITS)
        phi, pii = (
            int(weights[k][buckets].sum(dtype=int)) / np.sqrt(b - a + FEW) * scale[k] + bias[k]
            for k in range(2)
        )
        slow.append((phi, pii + max(sums[a:b]) * scale[2] + bias[2]))
    assert classes.logits(" ".join(words)) == pytest.approx(np.max(slow, axis=0))


@given(ANYTHING)
@settings(max_examples=200, deadline=None)
def test_no_text_breaks_it(classes: DataClassModel, text: str) -> None:
    found = classes.predict(text)
    assert set(found) == {"phi", "pii"}
    assert all(0.0 <= p <= 1.0 for p in found.values())
    assert Tokens(NO_WORDS).features(text).shape == (len(spans_of(text)[0]), FEATURES)


def test_tokens_are_words_numbers_and_signs() -> None:
    text = "Ann's card: 4021--17\n\n😀 ok"
    starts, ends = spans_of(text)
    pieces = [text[a:b] for a, b in zip(starts, ends, strict=True)]
    assert pieces == ["Ann", "'", "s", "card", ":", "4021", "--", "17", "\n\n", "😀", "ok"]
    assert inside(text, [(12, 20)]).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]


def test_digits_are_a_shape() -> None:
    features = Tokens(NO_WORDS).features
    card = features("card 4021 lost")
    assert (card == features("card 9876 lost")).all()
    assert not (card == features("card 40217 lost")).all()


def test_a_capital_means_less_where_a_sentence_begins() -> None:
    features = Tokens(NO_WORDS).features
    within = features("so Hill left")[1:]
    for before in (".", "?!", "\n", ":"):
        beginning = features(f"so{before} Hill left")[2:]
        # Its word alone is the same, whatever hangs on its shape is not; nor is it a small one's.
        same = (within == beginning)[0]
        assert same.any()
        assert not same.all()
        assert not (beginning == features(f"so{before} hill left")[2:]).all()
    assert (features("Hill left") == features(". Hill left")[1:]).all()


def test_tokens_look_two_ahead_and_no_further() -> None:
    features = Tokens(NO_WORDS).features
    one, other = features("a b c d e"), features("a b c X e")
    assert (one[0] == other[0]).all()
    assert [(one[i] == other[i]).all() for i in (1, 2, 3)] == [False, False, False]
    assert (one[4] == other[4]).all()


@given(st.lists(ANYTHING, min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_what_is_remembered_changes_nothing(texts: list[str]) -> None:
    """Nor does forgetting, nor a text of more tokens than are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "KEPT", 12)
        reader = Tokens(NO_WORDS)
        for text in texts * 2:
            assert (reader.features(text) == Tokens(NO_WORDS).features(text)).all()
        assert len(reader._known.places) <= 12


def test_threads_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "KEPT", 50)
    texts = [" ".join(f"w{chr(97 + (i * k) % 26)}{chr(97 + k)}" for k in range(20))
             for i in range(40)]  # fmt: skip
    reader, alone = Tokens(NO_WORDS), [Tokens(NO_WORDS).features(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(reader.features, texts * 10))
    assert all((a == b).all() for a, b in zip(found, alone * 10, strict=True))


def test_a_lexicon_makes_words_it_lists_alike() -> None:
    lexicon = NO_WORDS.copy()
    lexicon[slots_of(["anna", "Omar"])] = 2
    features = Tokens(lexicon).features
    anna, omar, card = (features(f"{word} left")[0] for word in ("Anna", "OMAR", "Card"))
    alone = 1  # what the shape and the lexicon say
    assert anna[alone] == features("Omar left")[0][alone] != card[alone]
    assert omar[alone] == features("ANNA left")[0][alone]
    assert card[alone] == Tokens(NO_WORDS).features("Card left")[0][alone]
    assert len(slots_of([])) == 0


def test_the_lexicon_has_common_words_and_names_but_no_one_else() -> None:
    rows = [Text(f"please call {name} back", "pii", "n", name, [(12, 15)]) for name in
            ("zed", "zed", "zed")]  # fmt: skip
    lexicon = lexicon_of([*rows, Text("xylophones", "", "n", "once")])

    def of(word: str) -> int:
        return int(lexicon[slots_of([word])[0]])

    assert [of(word) & 1 for word in ("please", "back", "zed", "xylophones")] == [1, 1, 0, 0]
    assert [int(((lexicon >> bit) & 1).sum()) > 300 for bit in (1, 2, 3)] == [True] * 3


def test_what_one_group_alone_shows_has_no_weight() -> None:
    """Else a model learns the fillings of a frame by heart, and half of the table with them."""
    rows = [
        Text(f"{start} {name} {end}", "pii", "names", start, [(len(start) + 1, len(start) + 5)])
        for start, end in (("ask", "please"), ("tell", "please"), ("meet", "zebras"))
        for name in ("Anna", "Omar", "Ruth")
    ]
    sums = [Text(f"how many {thing}?", "", "sums", thing) for thing in ("pens", "miles", "cars")]
    arrays = fit_classes([*rows, *sums])
    features = Tokens(arrays["lexicon"]).features("tell Anna please zebras")
    word = [arrays["windows"][1][features[i][0] >> (32 - BITS)] != 0 for i in range(4)]
    assert word == [False, True, True, False]


def test_windows_learn_what_is_not_known_yet() -> None:
    rows = [
        Window(np.array([target * 2 + known], dtype=np.int32), 1.0, (float(target),), 1.0, (at,))
        for target, known, at in ((0, 0, 0.0), (0, 1, -9.0), (1, 0, 0.0), (1, 1, 9.0))
    ] * 50
    (weights,), _ = fit_windows(rows, 4, Recipe(epochs=5, batch=20, rate=0.3, ridge=0.0, seed=1))
    assert weights[0] < -0.5 < 0.5 < weights[2]
    assert abs(weights[[1, 3]]).max() < 0.5 * abs(weights[[0, 2]]).min()


def test_every_frame_can_be_filled_and_its_spans_are_right() -> None:
    rng = random.Random(1)
    for frame in PERSONAL:
        text, spans = fill(frame, rng)
        assert "{{" not in text and "\0" not in text
        assert all(0 <= a < b <= len(text) for a, b in spans), frame
        assert spans, frame
    prompts = (*IMPERSONAL, *REPLIES, *MEDICINE)
    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("tokens", None, "no array 'tokens'"),
        ("hashing", np.array([1], dtype=np.int32), "another version"),
        ("lexicon", NO_WORDS[:8], "must be unsigned integers of shape"),
        ("windows", np.zeros((2, 8), dtype=np.int8), "must be integers of shape"),
        ("thresholds", np.array([0.5, 1.0]), "between 0 and 1"),
        ("abroad", None, "no array 'abroad'"),
        ("abroad", np.array([-0.5]), "0 or more, and finite"),
        ("abroad", np.array([np.nan]), "0 or more, and finite"),
        ("abroad", np.array([np.inf]), "0 or more, and finite"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    class_arrays: dict[str, Any], name: str, value: Any, why: str
) -> None:
    arrays = {**class_arrays, name: value}
    if value is None:
        del arrays[name]
    with pytest.raises(ArtefactError, match=why) as found:
        DataClassModel(arrays)
    assert found.value.file == FILE


class Broken(DataClassModel):
    """A model that fails at every look."""

    def __init__(self) -> None:
        self.broken = True

    def detect(self, text: str) -> frozenset[str]:
        if self.broken:
            raise MemoryError
        return frozenset(("pii",))


def test_a_model_that_fails_finds_nothing_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = Broken()
    texts = TextModels(classes=model)
    assert texts.detect("Anna Weber") == texts.detect("Anna Weber") == frozenset()
    assert texts.describe()["failures"] == 2
    assert "MemoryError" in str(texts.describe()["last_error"])
    assert len(caplog.records) == 1
    assert "Anna" not in caplog.text
    assert texts.describe()["failing"] == [FILE]
    model.broken = False
    assert texts.detect("Anna Weber") == {"pii"}
    assert texts.describe()["last_error"] is None
    assert texts.describe()["failing"] == []


class Mute(LanguageModel):
    def __init__(self) -> None:
        pass

    def code(self, text: str, floor: float) -> str | None:
        raise MemoryError


def test_the_escapes_of_json_hide_nothing_from_the_model(classes: DataClassModel) -> None:
    texts = TextModels(classes=classes)
    lines = f"Hello\n{NAMED}\n\t{NOTE}"
    assert texts.detect(lines) == {"pii", "phi"}
    once = json.dumps(lines)
    coded = "".join(f"\\u{ord(letter):04x}" for letter in lines)
    for text in (once, once[1:-1], json.dumps({"a": once}), coded):
        assert texts.detect(text) == {"pii", "phi"}, text


def test_references_of_html_hide_nothing_from_the_model(classes: DataClassModel) -> None:
    texts = TextModels(classes=classes)
    coded = "".join(f"&#{ord(letter)};" for letter in f"{NAMED} {NOTE}")
    assert texts.detect(coded) == texts.detect(coded.replace("&", "&amp;")) == {"pii", "phi"}


def test_one_model_that_works_does_not_hide_that_another_fails() -> None:
    works = Broken()
    works.broken = False
    texts = TextModels(language=Mute(), classes=works)
    assert texts.language("the house") is None
    assert texts.detect("Anna Weber") == {"pii"}
    assert texts.describe()["failing"] == ["language.npz"]


def test_an_artefact_without_the_files_detects_nothing(tmp_path: Path) -> None:
    texts = load_texts(tmp_path)
    assert texts.detect(NAMED) == frozenset()
    assert texts.language("the house") is None
    assert texts.describe()["data_classes"] is False
    (tmp_path / FILE).write_bytes(b"broken")
    with pytest.raises(ArtefactError, match=FILE):
        load_texts(tmp_path)


@pytest.fixture(scope="session")
def shipped(artefact: Path) -> DataClassModel:
    return load_classes(artefact / FILE)


def test_the_shipped_model_on_the_rows_it_was_fitted_on(
    shipped: DataClassModel, data_dir: Path
) -> None:
    """A regression check only: the held-out figures, by template, are in the manifest."""
    rates: dict[str, list[bool]] = {}
    for text in load_labelled(data_dir, 1)[::7]:
        if text.held:
            flagged = bool(shipped.detect(text.text) or detect(text.text).labels)
            rates.setdefault(text.source, []).append(flagged)
    rate = {name: sum(rows) / len(rows) for name, rows in rates.items()}
    assert rate["pii_templates"] > 0.98
    assert min(rate["dialogue"], rate["dialogue without speakers"], rate["note"]) > 0.98
    for name in ("mmlu_pro", "gsm8k_train", "clinc150", "banking77"):
        assert rate[name] < 0.03, name
