"""The language model: what it says, what it refuses to guess, and that no text breaks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

np = pytest.importorskip("numpy")

from routers.onnx.arrays import load_arrays, save_arrays  # noqa: E402 - numpy is needed first
from routers.onnx.language import (  # noqa: E402
    CHARACTERS,
    FILE,
    UNKNOWN,
    LanguageModel,
    buckets_of,
    load_language,
)
from routers.onnx.manifest import ArtefactError  # noqa: E402
from routers.onnx.ngrams import letters  # noqa: E402
from routers.train.data import read_records  # noqa: E402
from routers.train.language import Sentence, english_words, fit_language  # noqa: E402
from routers.train.spanish import restore  # noqa: E402

ANYTHING = st.text(st.characters(), max_size=300)  # lone surrogates among them


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("the house by the river", "en"),
        ("das Haus am Fluss", "de"),
        ("la maison a été vendue", "fr"),
        ("дом возле реки", "ru"),
    ],
)
def test_a_few_words_are_enough(language: LanguageModel, text: str, code: str) -> None:
    said, p = language.predict(text)
    assert said == code
    assert 0.0 < p <= 1.0


@pytest.mark.parametrize(
    "text", ["", "   ", "123 + 456 = 579", "😀😀", "\x00" * 100, "\ud800\udfff", "https://x.io/a"]
)
def test_a_text_without_letters_has_no_language(language: LanguageModel, text: str) -> None:
    assert language.predict(text) == UNKNOWN


def test_letters_that_no_language_of_the_model_has(language: LanguageModel) -> None:
    assert language.predict("ሰላም ለዓለም እንዴት ነህ") == UNKNOWN


def test_code_and_digits_do_not_count(language: LanguageModel) -> None:
    code = "```\nwhile house: river.sell(week)\n```"
    assert language.predict(f"Welche dieser Wörter kennst du?\n{code}")[0] == "de"
    assert letters(f"{code}", 100).split() == ["while", "house", "river", "sell", "week"]


def test_only_the_beginning_is_read(language: LanguageModel) -> None:
    start = "Das Haus am Fluss wurde verkauft. " * 20
    assert language.predict(start) == language.predict(start + "the house by the river " * 40_000)
    assert len(letters("ab " * 400_000, CHARACTERS)) <= CHARACTERS + 2


def test_the_same_word_in_two_spellings_has_the_same_pieces() -> None:
    for one, other in [("été", "e\u0301te\u0301"), ("și țară", "şi ţară"), ("l\u2019eau", "l'eau")]:
        assert (buckets_of(letters(one, 50)) == buckets_of(letters(other, 50))).all()


@given(ANYTHING)
@settings(max_examples=200, deadline=None)
def test_no_text_breaks_it(language: LanguageModel, text: str) -> None:
    code, p = language.predict(text)
    assert (code == "" and p == 0.0) or (code in language.names and 0.0 < p <= 1.0)


def test_training_is_deterministic_to_the_byte(tmp_path: Path) -> None:
    rows = [Sentence("en", "the river and the house"), Sentence("de", "der Fluss und das Haus")] * 2
    for name in ("a.npz", "b.npz"):
        save_arrays(tmp_path / name, fit_language(rows, pieces=500))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("weights", None, "no array 'weights'"),
        ("weights", np.zeros((3, 2), dtype=np.int8), "must be integers of shape"),
        ("scale", np.zeros(2, dtype=np.int64), "must be floats of shape 2"),
        ("blocks", np.array([3, 3], dtype=np.uint32), "must rise strictly"),
        ("blocks", np.array([1 << 20], dtype=np.uint32), "stay below"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    language_arrays: dict[str, Any], name: str, value: Any, why: str
) -> None:
    arrays = {**language_arrays, name: value}
    if value is None:
        del arrays[name]
    with pytest.raises(ArtefactError, match=why) as found:
        LanguageModel(arrays)
    assert found.value.file == FILE


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x93NUMPY", b"no archive at all"])
def test_a_corrupt_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ArtefactError) as found:
        load_language(tmp_path / FILE)
    assert found.value.file == FILE
    with pytest.raises(ArtefactError, match="No such file"):
        load_language(tmp_path / "nothing.npz")


def test_a_pickled_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / FILE, names=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ArtefactError):
        load_arrays(tmp_path / FILE)


def test_spanish_gets_its_accents_back() -> None:
    assert restore("Ms de cien aos despus, la educacin") == "Más de cien años después, la educación"
    assert restore("la primera manera") == "la primera manera"


@pytest.fixture(scope="session")
def shipped(artefact: Path) -> LanguageModel:
    return load_language(artefact / FILE)


def test_the_shipped_model_on_the_rows_it_was_fitted_on(
    shipped: LanguageModel, data_dir: Path
) -> None:
    """A regression check only: the held-out figures are in the manifest."""
    rows = list(read_records(data_dir / "languages.jsonl.gz", Sentence))[::10]
    assert len(shipped.names) == 75
    assert sum(shipped.predict(r.text)[0] == r.lang for r in rows) / len(rows) > 0.97
    assert sum(shipped.predict(r.text[:20])[0] == r.lang for r in rows) / len(rows) > 0.9


def test_plain_english_is_known_without_the_model(shipped: LanguageModel, data_dir: Path) -> None:
    rows = list(read_records(data_dir / "languages.jsonl.gz", Sentence))
    known = [row for row in rows if shipped.plainly_english(letters(row.text, CHARACTERS))]
    assert sum(row.lang == "en" for row in known) > 100
    foreign = [row for row in known if row.lang != "en"]
    assert len(foreign) <= 1, foreign  # one is English in truth
    for row in rows[::50]:
        code, p = shipped.predict(row.text)
        if row not in known:
            assert shipped.code(row.text, 0.3) == (code if p >= 0.3 else None)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("", False),
        ("The answer", False),
        ("The answer which follows", True),
        ("The answer which das Haus am Fluss steht und die Stadt und ihre Felder", False),
        ("The answer which follows \u00e9t\u00e9", False),
        ("Answer answer answer answer", False),
    ],
)
def test_what_is_plainly_english_needs_ascii_and_three_words_a_quarter_of_all(
    language_arrays: dict[str, Any], text: str, plain: bool
) -> None:
    model = LanguageModel(
        {**language_arrays, "english": np.array(["answer", "follows", "the", "which"])}
    )
    assert model.plainly_english(letters(text, CHARACTERS)) is plain


def test_a_file_of_an_earlier_version_is_told(language_arrays: dict[str, Any]) -> None:
    before = {name: array for name, array in language_arrays.items() if name != "english"}
    with pytest.raises(ArtefactError, match="earlier version: fit the artefact anew"):
        LanguageModel(before)


def test_the_words_of_english_are_no_other_languages() -> None:
    english = ["The hand is in the water", "what is the answer", "in what hand", "don't"]
    sentences = [
        *(Sentence("de", text) for text in ("die Hand", "in der Hand", "mit der Hand in der")),
        *(Sentence("fr", text) for text in ("la main", "est-ce the", "une eau")),
        Sentence("en", "water water what"),
    ]
    # Of "the", a third of the French sentences would be more than a language may have.
    assert english_words(english, sentences).tolist() == ["answer", "is", "water", "what"]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "What year did the war end?"),
        ("en", "Fix this bug: def f(x): return x+1"),
        ("en", "Let n be a prime with n = 1 mod 4; find all x."),
        ("de", "Wie viele Menschen leben in der Stadt?"),
        ("es", "¿Quién escribió el primer compilador?"),
        ("es", "¿En qué año terminó la guerra?"),
        ("fr", "Combien de personnes vivent dans la ville ?"),
        ("it", "Quante persone vivono in città?"),
        ("pt", "Quantas pessoas vivem na cidade?"),
        ("ro", "Câți oameni locuiesc în oraș?"),
        ("tr", "Savaş ne zaman bitti?"),
        ("vi", "Chiến tranh kết thúc khi nào?"),
        ("ru", "Когда закончилась война?"),
        ("el", "Πόσοι άνθρωποι ζουν στην πόλη;"),
        ("ar", "متى انتهت الحرب؟"),
        ("hi", "युद्ध कब समाप्त हुआ?"),
        ("th", "สงครามสิ้นสุดเมื่อใด"),
        ("zh", "這座城市有多少人居住"),
        ("ja", "この街には何人住んでいますか"),
        ("ko", "전쟁은 언제 끝났나요?"),
    ],
)
def test_the_shipped_model_on_questions_it_has_not_seen(
    shipped: LanguageModel, code: str, text: str
) -> None:
    assert shipped.predict(text)[0] == code
    assert shipped.code(text, 0.0) == code
