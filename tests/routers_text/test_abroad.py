"""Data classes in other languages than English: what the lexicon knows of them, what is taken off
there, and that a greeting is no personal data."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")

from routers.onnx.classes import FILE, DataClassModel, load_classes  # noqa: E402 - needs numpy
from routers.onnx.tokens import (  # noqa: E402
    ABROAD,
    ANYWHERE,
    COMMON,
    ELSEWHERE,
    GERMAN,
    LEXICON_BITS,
    Tokens,
    slots_of,
)
from routers.train import classes as training  # noqa: E402
from routers.train.abroad import GREETINGS, PERSONAL, REQUESTS  # noqa: E402
from routers.train.class_texts import SENTENCES, SMALL_TALK, Text  # noqa: E402
from routers.train.frames import fill  # noqa: E402
from routers.train.lexicon import lexicon_of, nameless  # noqa: E402

SPOKEN = ("Hallo", "Guten Morgen", "Bonjour", "¿Qué tal?", "Buongiorno", "Bom dia", "Dzień dobry",
          "Merhaba", "Спасибо", "Danke schön", "Wie spät ist es?", "Comment ça va ?",
          "¿Cómo se cocina el arroz?", "Was ist ein Atom?", "Schreibe ein Gedicht über den Herbst.",
          "Escribe un poema sobre el otoño.")  # fmt: skip
NAMED = (
    "Mein Name ist Thorsten Brinkmann und ich wohne in Oldenburg.",
    "Madame Odile Perrichon est née le 3 juin 1958 à Limoges.",
    "Envíe el paquete a la calle de los Olmos 15, 28012 Madrid.",
    "Mi chiamo Tommaso Bergamini e abito a Ferrara.",
    "Mijn naam is Jeroen Hoogendoorn en ik woon in Zwolle.",
)


def lexicon(**words: int) -> Any:
    table = np.zeros(1 << LEXICON_BITS, dtype=np.uint8)
    for word, bits in words.items():
        table[slots_of([word])] = bits
    return table


def test_a_word_says_of_which_language_it_is() -> None:
    known = lexicon(
        house=COMMON, die=COMMON | ELSEWHERE, so=COMMON | ANYWHERE, casa=ABROAD, haus=GERMAN
    )
    _, said = Tokens(known).read("House die so casa Haus 17 . Anna Привет")
    assert said.tolist() == [-1, 1, 0, 1, 1, 0, 0, 0, 1]
    assert Tokens(known).read("")[1].tolist() == []


def test_what_a_word_says_of_the_language_is_no_feature() -> None:
    one, other = lexicon(die=COMMON), lexicon(die=COMMON | ELSEWHERE | ANYWHERE)
    assert (Tokens(one).features("so die") == Tokens(other).features("so die")).all()


@pytest.fixture
def abroad(class_arrays: dict[str, Any]) -> DataClassModel:
    """The fitted model, with two words of another language and something to take off."""
    table = class_arrays["lexicon"].copy()
    table[slots_of(["heisse", "ich"])] = ABROAD
    off = np.array([100.0], dtype=np.float32)
    return DataClassModel({**class_arrays, "lexicon": table, "abroad": off})


def test_more_is_asked_only_where_the_words_are_of_another_language(
    abroad: DataClassModel, classes: DataClassModel
) -> None:
    phi, english, foreign = abroad.evidence("Ich heisse Anna Weber.")
    assert english == -np.inf
    assert foreign > -np.inf
    assert abroad.logits("Ich heisse Anna Weber.") == pytest.approx((phi, foreign - 100.0))
    for text in ("My name is Anna Weber.", "Anna Weber", "My name is Anna Weber, said ich."):
        phi, english, foreign = abroad.evidence(text)
        assert foreign == -np.inf
        assert abroad.logits(text) == (phi, english)
    assert abroad.logits("My name is Anna Weber.") == classes.logits("My name is Anna Weber.")


def test_an_english_paragraph_is_found_after_many_of_another_language(
    abroad: DataClassModel,
) -> None:
    text = "ich heisse " * 400 + "\n" + "Please call Anna Weber back. She lives next door. " * 20
    assert "pii" in abroad.detect(text)


def rows(lang: str, *texts: str) -> list[Text]:
    return [Text(text, "", f"{SENTENCES} {lang}", text, lang=lang) for text in texts]


def test_the_lexicon_knows_words_of_other_languages_without_names() -> None:
    found = lexicon_of([
        *rows("es", "la casa de Quixara", "la mesa de Quixara", "una casa con Maria"),
        *rows("de", "das Haus von Maria", "ein Haus am Fluss"),
        *(Text("please de house", "", "n", str(i)) for i in range(3)),
        Text("Buongiorno", "", SMALL_TALK, "greeting", lang="it"),
    ])  # fmt: skip

    def of(word: str) -> int:
        return int(found[slots_of([word])[0]])

    assert [of(word) for word in ("casa", "la", "haus", "buongiorno")] == [
        ABROAD, ABROAD, GERMAN, ABROAD]  # fmt: skip
    assert [of(word) & (ABROAD | GERMAN) for word in ("mesa", "quixara", "maria", "fluss")] == [
        0
    ] * 4
    # What is common in English keeps its features.
    assert of("de") & (COMMON | ABROAD) == COMMON
    assert of("please") == COMMON


@pytest.mark.parametrize(
    ("lang", "text", "free"),
    [
        ("es", "La casa es grande.", True),
        ("es", "La casa de Quixara es grande.", False),
        ("es", "La casa tiene 3 mesas.", False),
        ("de", "Die Kanalbrücke ist breit.", True),
        ("de", "Die Rede hielt Gundula Wexmann.", False),
        ("de", "Die Brücke gehört Anna.", False),
        ("ja", "こんにちは", False),  # no capitals, so one cannot tell
        ("es", "...", False),
    ],
)
def test_a_sentence_is_about_nobody_where_nothing_looks_like_a_name(
    lang: str, text: str, free: bool
) -> None:
    known = lexicon(la=ABROAD, die=GERMAN, anna=2)
    assert nameless(text, lang, known) is free


def test_what_is_taken_off_lets_few_texts_about_nobody_through() -> None:
    """And the threshold of English texts does not see them."""
    english = [Text("t", "", source, str(i)) for i, source in enumerate(training.EVERYDAY * 40)]
    clinical = [Text("t", "phi", "note", str(i)) for i in range(10)]
    spoken = [Text("t", "", SMALL_TALK, str(i), lang="de") for i in range(100)]
    evidence = np.array(
        [(-9.0, i / 100, training.NOWHERE) for i in range(len(english))]
        + [(5.0, 0.0, training.NOWHERE)] * len(clinical)
        + [(-9.0, training.NOWHERE, 4 + i / 100) for i in range(len(spoken))]
    )
    limits = training._limits([*english, *clinical, *spoken], evidence)
    flagged = limits.flagged(evidence)
    assert flagged[: len(english)].mean() == pytest.approx(training.ALARMS, abs=0.006)
    assert flagged[-len(spoken) :].mean() == pytest.approx(training.ALARMS_ABROAD, abs=0.011)
    assert limits.abroad > 2


def test_phrases_and_frames_can_be_used() -> None:
    rng = random.Random(1)
    for frame in PERSONAL:
        text, spans = fill(frame, rng)
        assert spans, frame
        assert all(text[a:b].strip() for a, b in spans), frame
    assert len(set(PERSONAL)) == len(PERSONAL)
    for phrases in (*GREETINGS.values(), *REQUESTS.values()):
        said = phrases.split("|")
        assert all(said)
        assert len(set(said)) == len(said)
        assert "{" not in phrases


@pytest.fixture(scope="session")
def shipped(artefact: Path) -> DataClassModel:
    return load_classes(artefact / FILE)


@pytest.mark.parametrize("text", SPOKEN)
def test_a_greeting_or_request_in_another_language_is_no_data_of_anybody(
    shipped: DataClassModel, text: str
) -> None:
    assert shipped.detect(text) == frozenset()


@pytest.mark.parametrize("text", NAMED)
def test_somebody_named_in_another_language_is_found(shipped: DataClassModel, text: str) -> None:
    assert "pii" in shipped.detect(text)
