from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.errors import UpstreamProtocolError
from backends.sse import SSEEvent, SSEParser

LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:x",
        b"data: a b",
        b"data",
        b"data:",
        b"data: \xc3\xa9\xf0\x9f\x98\x80",
        b": comment",
        b"event: ping",
        b"event:",
        b"id: 7",
        b"retry: 500",
        b"unknown: 1",
        b"",
        b"",
        b"\xef\xbb\xbfdata: late",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def parse(chunks: list[bytes]) -> list[tuple[str | None, bytes]]:
    parser = SSEParser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events + parser.close()


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    end = draw(ENDS)
    stream = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    stream += b"".join(line + end for line in draw(st.lists(LINES, max_size=20)))
    cuts = draw(st.lists(st.integers(0, len(stream)), max_size=12))
    edges = [0, *sorted(cuts), len(stream)]
    return stream, [stream[a:b] for a, b in pairwise(edges)]


@given(cut_streams())
@example((b"data: a\r\n\r\ndata: b\r\n\r\n", [b"data: a\r", b"\n\r", b"\ndata: b\r\n\r\n"]))
@example((b"data: a\n\ndata: b\n\n", [b"data: a\n", b"\n", b"data: b\n\n"]))
@example((b"data: {}\ndata: {}\n", [b"data: {}\nd", b"ata: {}\n"]))
def test_any_cut_gives_the_same_events(case: tuple[bytes, list[bytes]]) -> None:
    stream, chunks = case
    assert parse(chunks) == parse([stream])


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_nothing_is_invented(chunks: list[bytes]) -> None:
    whole = b"".join(chunks).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for _, data in parse(chunks):
        for line in data.split(b"\n"):
            assert line in whole


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_forms(end: bytes) -> None:
    lines = [
        b"\xef\xbb\xbfevent: a",
        b"data: 1",
        b"data:2",
        b"",
        b": hi",
        b"",
        b"id: 3",
        b"data: x",
    ]
    assert parse([end.join(lines)]) == [("a", b"1\n2"), (None, b"x")]


def test_an_event_comes_out_with_its_last_byte_even_after_a_bare_cr() -> None:
    parser = SSEParser()
    assert parser.feed(b"data: 1\r") == []
    assert parser.feed(b"\r") == [(None, b"1")]
    assert parser.feed(b"\ndata: 2\n\n") == [(None, b"2")]


def test_a_bare_cr_inside_a_chunk_ends_a_line() -> None:
    assert parse([b"data: a\rdata: b\n\n"]) == [(None, b"a\nb")]


def test_a_byte_order_mark_counts_at_the_beginning_only() -> None:
    mark = b"\xef\xbb\xbf"
    assert parse([mark + b"data: a\n\n", mark + b"data: b\n\n"]) == [(None, b"a")]


def test_an_event_name_alone_does_not_reach_the_next_event() -> None:
    assert parse([b"event: a\n\n", b"data: 1\n\n"]) == [(None, b"1")]


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 50, b"x" * 50, b"data: xxxxxx\n"])
def test_an_event_is_bounded(piece: bytes) -> None:
    parser = SSEParser(max_event_bytes=200)
    with pytest.raises(UpstreamProtocolError):
        list(map(parser.feed, [piece] * 100))


def test_a_long_stream_of_small_events_is_not_bounded() -> None:
    parser = SSEParser(max_event_bytes=200)
    count = sum(
        len(parser.feed(b"data: x\n\ndata: y")) + len(parser.feed(b"\n\n")) for _ in range(999)
    )
    assert count == 1998


@pytest.mark.parametrize(
    ("before", "events"),
    [
        (b"event: ping\n", [("ping", b"{}")]),
        (b"data: [\n", [(None, b"[\n{}")]),
        (b"data: a", [(None, b"adata: {}")]),
        (b": comment\n", [(None, b"{}")]),
        (b"data: a\r\n\r", [(None, b"{}")]),
    ],
    ids=["name", "line", "half a line", "comment", "carriage return"],
)
def test_a_chunk_that_looks_like_a_whole_event_may_end_one(
    before: bytes, events: list[SSEEvent]
) -> None:
    parser = SSEParser()
    parser.feed(before)
    assert parser.feed(b"data: {}\n\n") == events
    # And the next one is by itself again.
    assert parser.feed(b"data: {}\n\n") == [(None, b"{}")]
