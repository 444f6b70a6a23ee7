"""Long texts are read in windows of fixed size; what is found is what one look at the whole text
finds, and memory does not grow with the text."""

from __future__ import annotations

import re
import tracemalloc
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from routers.patterns import clinical, detect, detecting, escapes, personal, windows
from routers.patterns.numbers import CHECKS, PREFIXES, is_card

# The package has a function of the module's name.
normalise = import_module("routers.patterns.normalise")
_CHUNK = re.compile(r"[0-9]+(?:[ \t\-./()_]{1,3}[0-9]+)*")
_CHECKED = frozenset(check.kind for checks in CHECKS.values() for check in checks)

numbers = st.lists(
    st.one_of(
        st.text("0123456789", min_size=1, max_size=20),
        st.text("0124 .-/()_\t", min_size=1, max_size=8),
        st.sampled_from((" ", ".", "-", "   ", "    ", "x", "card ", "ssn ", "nhs ", "cpr ")),
        st.sampled_from(("4111 1111 1111 1111", "536-32-3065", "44051401359", "943 476 5870")),
        st.sampled_from(("2 95 10 99 126 111 93", "3782 822463 10005", "36574261809", "1.")),
    ),
    max_size=40,
).map("".join)
texts = st.lists(
    st.one_of(
        st.sampled_from(
            (
                *(
                    "4111 1111 1111 1111",
                    "jane@example.org",
                    "jane (at) example (dot) org",
                    "@",
                    ".",
                ),
                *("+49 30 901820", "call ", "geboren am 03.12.1961", "54362315-K", "\u200b", " "),
                *("GB82 WEST 1234 5698 7654 32", "passport no ", "C12345678", "1.", "a", "\n"),
                *("MRN 445566 ", "Patient: ", "Doctor: ", "chest pain ", "he ", "50 mg ", "E11.9 "),
                *(
                    "\\",
                    "\\\\",
                    "\\n",
                    "\\\\\\u0034",
                    "\\u00",
                    'x\\nDE89370400440532013000\\"',
                    "\\t",
                ),
                *("&#64;", "&nbsp;", "&", ";", "%40", "%2", "1961 ", "ur. 12 mar ", "geb. "),
                *("née ", "e\u0301", "\uff14111", "\\u0034111 1111 1111 1111", "\u2013", "\ufdfa"),
            )
        ),
        st.text(max_size=6),
    ),
    max_size=40,
).map("".join)


def _kinds_of_groups(text: str) -> set[str]:
    """What is found in groups of digits, as it is defined: all groups of a chunk, one by one."""
    kinds = set()
    for match in _CHUNK.finditer(text):
        spans = [(match.start() + a.start(), match.start() + a.end())
                 for a in re.finditer("[0-9]+", match[0])]  # fmt: skip
        for first, (left, _) in enumerate(spans):
            if first and text[left - 1] == "." and len(spans) == 2:
                continue
            shape: tuple[int, ...] = ()
            for begin, end in spans[first:]:
                shape = (*shape, end - begin)
                if shape not in PREFIXES:
                    break
                number = text[left:end]
                near = text[max(0, left - 48) : end + 48].lower()
                for check in CHECKS.get(shape, ()):
                    dashed = check.dashed and number.count("-") == len(shape) - 1
                    free = check.cue is None or dashed or check.cue.found(near)
                    if free and check.valid("".join(re.findall("[0-9]", number))):
                        kinds.add(check.kind)
        digits = "".join([text[a:b] for a, b in spans])
        even = {b - a for a, b in spans} in ({1}, {2})
        if len(spans) > 6 and even and 13 <= len(digits) <= 19 and is_card(digits):
            kinds.add("card")
    return kinds


@contextmanager
def _windows_of(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (windows, personal, clinical, normalise, escapes):
            patch.setattr(module, "WINDOW", size)
        yield


@settings(max_examples=300, deadline=None)
@given(numbers)
@example("1." * 300 + "4111 1111 1111 1111")
@example("1 " * 255 + "1 4111 1111 1111 1111")
@example("2 " * 254 + "2 95 10 99 126 111 93" + " 7" * 300)
@example(" 4111.44051401359")
@example("1 " * 256 + "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1")
@example("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1" + " 1" * 300)
def test_every_shape_in_a_run_of_groups_is_checked(text: str) -> None:
    found = windows.finish(personal.personal_kinds(text))
    assert found & _CHECKED == _kinds_of_groups(text)


@settings(max_examples=300, deadline=None)
@given(text=texts)
@example(text="1." * 300 + "4111 1111 1111 1111 " + "1." * 300)
@example(text="44051401359 44051401358 536-32-3065")
def test_narrow_windows_miss_nothing_and_add_nothing(text: str) -> None:
    whole = detect(text)
    for size in (7, 64):
        with _windows_of(size):
            assert detect(text) == whole


@pytest.mark.parametrize("kind", ["card", "email", "iban", "us_ssn", "phone"])
def test_data_across_the_edge_of_a_window_is_found(kind: str) -> None:
    data = {
        "card": "4111 1111 1111 1111",
        "email": "jane.doe@mail.example.org",
        "iban": "GB82 WEST 1234 5698 7654 32",
        "us_ssn": "ssn 536323065",
        "phone": "+49 30 901820",
    }[kind]
    filler = "word, " * (windows.WINDOW // 6 + 20)
    for shift in range(-40, 2):
        text = f"{filler[: windows.WINDOW + shift]} {data} {filler}"
        assert kind in detect(text).kinds


@settings(max_examples=300, deadline=None)
@given(
    st.text(
        st.sampled_from("a1 é\u0301\u0323\uff9e\ufdfa\u1100\u1161\u11a8가字\u200b\uff14\u2013"),
        max_size=60,
    )
)
def test_folding_by_pieces_is_folding_the_whole(text: str) -> None:
    for filler in ("", "x" * (normalise._PIECE - 3)):
        whole = unicodedata.normalize("NFKC", filler + text.replace("\u200b", ""))
        whole = re.sub("(?<=[a-z0-9])[\u0301\u0323]+", "", whole.replace("\u2013", "-"))
        assert windows.finish(normalise.normalise(filler + text)) == whole


@pytest.mark.parametrize("at", ["&#64;", "&amp;commat;", "%40", "\\u0040"])
def test_an_escape_across_the_edge_of_a_window_is_resolved(at: str) -> None:
    for shift in range(-12, 2):
        filler = "word, " * (windows.WINDOW // 6 + 20)
        text = f"{filler[: windows.WINDOW + shift - 5]} jane{at}example.org {filler}"
        assert detect(text).kinds == ("email",)


def test_words_that_a_cut_goes_through_are_whole() -> None:
    filler = "x " * (windows.WINDOW // 2 - 4)
    for shift in range(12):
        text = filler + "y" * shift + " MRN 445566 patient"
        assert "medical_record_number" in detect(text).kinds


def test_a_cut_begins_no_word() -> None:
    rest = "mrn 445566 patient"
    assert detect("x" * windows.WINDOW + rest) == detect("")
    assert detect("x" * (windows.WINDOW - 1) + " " + rest).labels == {"phi"}


def test_a_cut_ends_no_word() -> None:
    before = "patient pain fever " + "y " * windows.WINDOW
    for shift in range(16):
        text = f"{before[: windows.WINDOW + windows.REACH - shift]} 50 mgs"
        assert detect(text).kinds == detect(before).kinds
        assert "dose" in detect(text[:-1]).kinds


@pytest.mark.parametrize(
    "unit",
    ["1.", "1 ", "  12 3 ", "4111 1111 1111 1112 ", "a@", "The quick brown fox. ", "\u200b字"],
)
def test_memory_does_not_grow_with_the_text(unit: str) -> None:
    text = unit * (400_000 // len(unit))
    own = len(windows.finish(normalise.normalise(text)).encode("utf-16"))
    tracemalloc.start()
    try:
        detect(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The folded text and its pieces, where it is not plain; windows and their matches.
    assert peak < (0 if text.isascii() else 4 * own) + 6_000_000


@pytest.mark.parametrize(
    "unit",
    [
        "11111111112x",
        "\\u0031111111111\\n2x",
        "&#49;1111111112x",
        "%31111111111 ",
        "\ufdfa",
        "a@a (",
    ],
)
def test_a_long_text_is_read_in_small_steps_that_find_what_one_look_finds(unit: str) -> None:
    text = unit * (2 * windows.WINDOW // len(unit)) + " 4111 1111 1111 1111 jane@example.org"
    steps, count = detecting(text), 0
    while True:
        try:
            next(steps)
        except StopIteration as over:
            found = over.value
            break
        count += 1
    assert count >= len(text) // windows.WINDOW
    assert found == detect(text)
    assert {"card", "email"} <= set(found.kinds)
