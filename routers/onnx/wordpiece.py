"""WordPiece for plain text, several times as fast as the library's tokenizer.

The library follows every character through normalisation so that it can say where a token came
from, and reads all of a text before it cuts it; a router asks for the first ids only. Text of ASCII
and a few typographic signs, which is most of what is written in English, needs no normalisation but
lower case; that of other scripts is made plain first (`routers.onnx.characters`); then words are
looked up in a dict. Text with rarer characters is the library's. The algorithm is that of BERT
(google-research/bert, tokenization.py): longest piece first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from routers.onnx.characters import opened, readable, words
from routers.onnx.spelling import Spelling

# Without control characters, which the normaliser drops.
_PLAIN = re.compile(r"[\t\n\r -~\u2013\u2014\u2018\u2019\u201c\u201d\u2026]*")
_WORDS = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~\u2013\u2014\u2018\u2019\u201c\u201d\u2026]")
_LONGEST = 100
# A text with more unknown words, and a larger share of them, is not mended: it is in another
# language, or code.
FEW, SHARE = 2, 0.25
_NORMALIZER = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}
_MODEL = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": _LONGEST,
}


class WordPiece:
    """`vocabulary` with the pieces inside words under `##`; `added`: tokens that stand for
    themselves wherever they are written. Stateless: no text changes how long another takes."""

    def __init__(
        self, vocabulary: Mapping[str, int], added: tuple[str, ...], max_tokens: int
    ) -> None:
        self._ids = dict(vocabulary)
        self._added = added
        self._most = max_tokens - 2
        self._begin, self._end = self._ids["[CLS]"], self._ids["[SEP]"]
        self._unknown = self._ids["[UNK]"]
        self._inner = {
            word.removeprefix("##"): number
            for word, number in self._ids.items()
            if word.startswith("##")
        }
        self._reach, self._reach_inside = _reach(self._ids), _reach(self._inner)
        self._readable, self._words = readable(), words()
        self._spelling: Spelling | None = None

    def mend(self, known: Iterable[int]) -> None:
        """From now on, mend words before they are taken apart; `known`: keys of words that are
        right though the vocabulary does not hold them (see `Spelling`)."""
        self._spelling = Spelling(self._ids, known)

    def encode(self, text: str) -> list[int] | None:
        """Ids with the special ones, at most `max_tokens`; None for text that is the library's."""
        if "[" in text and any(token in text for token in self._added):
            return None
        if _PLAIN.fullmatch(text) is not None:
            found = _WORDS.findall(text.lower())
        elif self._readable.fullmatch(text) is not None:
            found = self._words.findall(opened(text))
        else:
            return None
        del found[self._most :]
        ids = [self._ids.get(word, -1) for word in found]
        if -1 in ids:
            ids = self._split(found, ids)
        return [self._begin, *ids[: self._most], self._end]

    def _split(self, found: list[str], ids: list[int]) -> list[int]:
        """With what unknown words (-1) are, mended or in pieces, in their place."""
        unknown = [at for at, number in enumerate(ids) if number < 0]
        mending = self._spelling if len(unknown) <= max(FEW, SHARE * len(ids)) else None
        whole: list[int] = []
        after = 0
        for at in unknown:
            whole += ids[after:at]
            if len(whole) >= self._most:
                return whole
            after = at + 1
            meant = mending.mend(found[at]) if mending is not None else None
            if meant is not None:
                whole.append(self._ids[meant])
            else:
                whole += self._pieces(found[at])
        return whole + ids[after:]

    def _pieces(self, word: str) -> list[int]:
        """Of one word; [UNK] alone when a part of it is not in the vocabulary."""
        if len(word) > _LONGEST:
            return [self._unknown]
        found: list[int] = []
        start, ids, reach = 0, self._ids, self._reach
        while start < len(word):
            # No piece is wider than that: a hundred random letters are not tried a hundred times.
            furthest = min(len(word), start + reach.get(word[start], 0))
            for end in range(furthest, start, -1):
                piece = ids.get(word[start:end])
                if piece is not None:
                    break
            else:
                return [self._unknown]
            found.append(piece)
            start, ids, reach = end, self._inner, self._reach_inside
        return found


def _reach(pieces: Iterable[str]) -> dict[str, int]:
    """By first character, the length of the longest of them."""
    found: dict[str, int] = {}
    for piece in filter(None, pieces):
        found[piece[0]] = max(found.get(piece[0], 0), len(piece))
    return found


def wordpiece_of(config: Mapping[str, Any], max_tokens: int) -> WordPiece | None:
    """From a `tokenizer.json`, or None when it is of another kind."""
    model, normalizer = config.get("model") or {}, config.get("normalizer")
    pre, vocabulary = config.get("pre_tokenizer") or {}, model.get("vocab")
    if not isinstance(vocabulary, dict):
        return None
    known = (
        normalizer == _NORMALIZER
        and pre == {"type": "BertPreTokenizer"}
        and all(model.get(key) == value for key, value in _MODEL.items())
        and {"[CLS]", "[SEP]", "[UNK]"} <= vocabulary.keys()
        and max_tokens > 2
    )
    if not known:
        return None
    added = tuple(str(token.get("content")) for token in config.get("added_tokens") or ())
    if not all("[" in token for token in added):
        return None
    return WordPiece(vocabulary, added, max_tokens)
