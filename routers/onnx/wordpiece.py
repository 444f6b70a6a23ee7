"""WordPiece for plain text, several times as fast as the library's tokenizer.

The library follows every character through normalisation so that it can say where a token came
from; a router asks for ids only. Text of ASCII and a few typographic signs, which is most of what
is written in English, needs no normalisation but lower case, and its words are looked up in a dict.
Any other text is the library's. The algorithm is that of BERT (google-research/bert,
tokenization.py): longest piece first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

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
        self._widest = max(map(len, self._ids))
        self._spelling: Spelling | None = None

    def mend(self, known: Iterable[int]) -> None:
        """From now on, mend words before they are taken apart; `known`: keys of words that are
        right though the vocabulary does not hold them (see `Spelling`)."""
        self._spelling = Spelling(self._ids, known)

    def encode(self, text: str) -> list[int] | None:
        """Ids with the special ones, at most `max_tokens`; None for text that is not plain."""
        if _PLAIN.fullmatch(text) is None:
            return None
        if "[" in text and any(token in text for token in self._added):
            return None
        words = _WORDS.findall(text.lower())[: self._most]
        ids = [self._ids.get(word, -1) for word in words]
        if -1 in ids:
            few = ids.count(-1) <= max(FEW, SHARE * len(ids))
            ids = self._split(words, self._spelling if few else None)
        return [self._begin, *ids[: self._most], self._end]

    def _split(self, words: list[str], spelling: Spelling | None) -> list[int]:
        found: list[int] = []
        for word in words:
            known = self._ids.get(word)
            if known is None and spelling is not None:
                known = self._ids.get(spelling.mend(word) or word)
            if known is not None:
                found.append(known)
            else:
                found.extend(self._pieces(word))
            if len(found) >= self._most:
                break
        return found

    def _pieces(self, word: str) -> list[int]:
        """Of one word; [UNK] alone when a part of it is not in the vocabulary."""
        if len(word) > _LONGEST:
            return [self._unknown]
        found: list[int] = []
        start, ids = 0, self._ids
        while start < len(word):
            # No piece is wider than that: a hundred random letters are not tried a hundred times.
            for end in range(min(len(word), start + self._widest), start, -1):
                piece = ids.get(word[start:end])
                if piece is not None:
                    break
            else:
                return [self._unknown]
            found.append(piece)
            start, ids = end, self._inner
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
