"""Personal data with a form: cards, accounts, national ids, e-mail, telephone, birth dates."""

from __future__ import annotations

import re

from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.ie import pps
from stdnum.it import codicefiscale

from routers.patterns.numbers import CHECKS, PREFIXES, has_iban, is_card

# Digits and separators exclude each other, so there is one way to match: linear.
_CHUNK = re.compile(r"[0-9][0-9]*(?:[ \t\-./()_]{1,3}[0-9]+)*")
_GROUP = re.compile(r"[0-9]+")

_DOMAIN = re.compile(r"(?:[A-Za-z0-9\-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])")
_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-'")
_SPELT_AT = re.compile(
    r"[(\[{<] ?(?:at|AT|ät) ?[)\]}>] ?[\w\-]{1,63}"
    r"(?: ?[(\[{<] ?(?:dot|DOT|punkt|point) ?[)\]}>] ?|\.)[A-Za-z]{2,24}"
)
_BRACKETS = ("(", "[", "{", "<")

_PHONE_BEFORE = re.compile(
    r"\b(?:phone|tel|tels|telephone|telefon|telefono|teléfono|téléphone|mobile|mobil|handy|"
    r"móvil|cell|cellphone|portable|fax|whatsapp|call|ring|calling|dial|anruf|rufnummer|"
    r"phone number|reach (?:me|us|you|him|her)|answering|sms|text me)\b[^0-9\n]{0,24}$"
)
# A piece of each word above: looking for these first is far cheaper.
_PHONE_HINTS = (
    *("phone", "tel", "mobi", "handy", "móvil", "cell", "portable", "fax", "whatsapp", "call"),
    *("ring", "dial", "anruf", "rufnummer", "reach ", "answering", "sms", "text me", "téléphone"),
)
_PHONE_AFTER = re.compile(r"^[\s\-x0-9]{0,8}[(\-\s]?(?:office|mobile|fax|cell|home|phone|tel)\b")
_DATE = re.compile(
    r"(?:(?:19|20)[0-9]{2}[\-./][0-9]{1,2}[\-./][0-9]{1,2}|"
    r"[0-9]{1,2}[\-./][0-9]{1,2}[\-./](?:[0-9]{4}|[0-9]{2}))(?![\-./]?[0-9])"
)
_BORN = re.compile(
    r"\b(?:dob|d\.o\.b\.?|date of birth|birth ?date|birthday|born(?: on)?|geboren(?: am)?|geb\.|"
    r"geburtsdatum|née? le|date de naissance|fecha de nacimiento|nacid[oa] el|data di nascita|"
    r"geboortedatum)[^0-9\n]{0,24}$"
)
_DOCUMENT = re.compile(
    r"(?:driver'?s?|driving|drivers) licen[cs]e|passport (?:no|num)|führerschein|"
    r"reisepass|passnummer|permis de conduire|pasaporte|permiso de conducir"
)
_DOCUMENT_NUMBER = re.compile(r"\b[A-Z]{0,3}[0-9][0-9A-Z]{4,17}\b", re.ASCII | re.IGNORECASE)
_NINO = re.compile(
    r"(?<![A-Z0-9])[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ \-]?(?:[0-9]{2}[ \-]?){3}[A-D](?![A-Z0-9])"
)
_CHECK_LETTER = re.compile(r"[ \-]?([A-Za-z])(?![A-Za-z0-9])")
_CUE_REACH = 48


def personal_kinds(text: str) -> set[str]:
    """The kinds of personal data in normalised text. Linear."""
    kinds: set[str] = set()
    scan: _Scan | None = None
    for match in _CHUNK.finditer(text):
        if scan is None:
            scan = _Scan(text, kinds)
        scan.look_at(match)
    if _has_email(text) or _has_spelt_email(text):
        kinds.add("email")
    return kinds


class _Scan:
    """One pass over the digit chunks of a text: digit groups with separators between them, and
    the letters that touch them."""

    def __init__(self, text: str, kinds: set[str]) -> None:
        self._text = text
        self._kinds = kinds
        self._cues: dict[str, bool] = {}

    def look_at(self, match: re.Match[str]) -> None:
        text, kinds = self._text, self._kinds
        start, end = match.span()
        if start and text[start - 1].isalpha():
            _after_letters(text, start, kinds)
        size = end - start
        if size < 5:
            return
        chunk = match[0]
        documents = "id_document" not in kinds and self._said("licen", "pass", "perm", "führ")
        if documents and _is_document(text, start):
            kinds.add("id_document")
        if size < 6:
            return
        spans = [group.span() for group in _GROUP.finditer(chunk)]
        digits = "".join([chunk[a:b] for a, b in spans]) if size <= 12 else ""
        if 6 <= len(digits) <= 9:
            _beside_letters(text, start, end, digits, kinds)
        if size >= 8 or len(spans) > 1:
            self._scan_groups(start, chunk, spans)
        if size > 40:
            return
        if "phone" not in kinds and _is_phone(text, start, end, chunk, spans):
            kinds.add("phone")
        if "dob" not in kinds and _is_birth_date(text, start, chunk):
            kinds.add("dob")

    def _said(self, *words: str) -> bool:
        """Whether any of the words is in the text at all; asked once, so that texts without the
        cue of a check never pay for it."""
        known = self._cues.get(words[0])
        if known is None:
            lower = self._text.lower()
            known = self._cues[words[0]] = any(word in lower for word in words)
        return known

    def _scan_groups(self, start: int, chunk: str, spans: list[tuple[int, int]]) -> None:
        for first, (left, _) in enumerate(spans):
            # What follows a decimal point is a fraction, unless the whole number is dotted.
            if first and chunk[left - 1] == "." and len(spans) == 2:
                continue
            shape: tuple[int, ...] = ()
            for last in range(first, len(spans)):
                shape = (*shape, spans[last][1] - spans[last][0])
                if shape not in PREFIXES:
                    break
                if shape in CHECKS:
                    self._check(start + left, chunk[left : spans[last][1]], shape)
        if len(spans) > 6 and "card" not in self._kinds:
            widths = {b - a for a, b in spans}
            total = sum(b - a for a, b in spans)
            even = 13 <= total <= 19 and widths in ({1}, {2})
            if even and is_card("".join(chunk[a:b] for a, b in spans)):
                self._kinds.add("card")

    def _check(self, at: int, number: str, shape: tuple[int, ...]) -> None:
        digits = number if len(shape) == 1 else "".join(_GROUP.findall(number))
        near: str | None = None
        for check in CHECKS[shape]:
            if check.kind in self._kinds:
                continue
            free = check.cue is None or (check.dashed and number.count("-") == len(shape) - 1)
            if check.cue is not None and not free:
                if near is None:
                    reach = slice(max(0, at - _CUE_REACH), at + len(number) + _CUE_REACH)
                    near = self._text[reach].lower()
                free = check.cue.found(near)
            if free and check.valid(digits):
                self._kinds.add(check.kind)


def _after_letters(text: str, start: int, kinds: set[str]) -> None:
    """Numbers that begin with letters: the chunk of digits touches at least one."""
    two = start - 2
    alone = two >= 0 and text[two].isalpha() and not (two and text[two - 1].isalnum())
    if alone and "iban" not in kinds and has_iban(text, two):
        kinds.add("iban")
    if start >= 6 and text[start - 6 : start].isalpha():
        code = text[start - 6 : start + 10]
        if len(code) == 16 and code.isalnum() and codicefiscale.is_valid(code):
            kinds.add("it_codice_fiscale")


def _beside_letters(text: str, start: int, end: int, digits: str, kinds: set[str]) -> None:
    """Numbers of six to eight or nine digits with a check letter after them."""
    size = len(digits)
    letter = _CHECK_LETTER.match(text, end)
    if letter is None:
        if size == 6 and text[end : end + 1] == "A" and hetu.is_valid(text[start : end + 5]):
            kinds.add("fi_hetu")
    elif size == 8 and dni.is_valid(digits + letter[1]):
        kinds.add("es_dni")
    elif size == 7:
        first = text[max(0, start - 2) : start].rstrip("- ")[-1:]
        if first in ("X", "Y", "Z", "x", "y", "z") and nie.is_valid(first + digits + letter[1]):
            kinds.add("es_nie")
    elif size == 6 and _NINO.search(text[max(0, start - 4) : end + 3].upper()):
        kinds.add("uk_nino")
    elif size == 9 and text[start + 6] == "-" and hetu.is_valid(text[start : end + 1]):
        kinds.add("fi_hetu")
    if size == 7 and "pps" in text[max(0, start - _CUE_REACH) : start].lower():
        code = text[start : end + 2]
        if pps.is_valid(code) or pps.is_valid(code[:8]):
            kinds.add("ie_pps")


def _is_phone(text: str, start: int, end: int, chunk: str, spans: list[tuple[int, int]]) -> bool:
    digits = sum(b - a for a, b in spans)
    if not 7 <= digits <= 19:
        return False
    sizes = tuple(b - a for a, b in spans)
    head = text[max(0, start - 3) : start]
    plus = head.rstrip("( ")
    if plus.endswith("+") and not plus[:-1][-1:].isalnum():
        return chunk[0] != "0" and 8 <= digits <= 15
    north = sizes[-3:] if sizes[:1] == (1,) and len(sizes) == 4 else sizes[:3]
    if north == (3, 3, 4) and not _DATE.match(chunk):
        at = spans[1 if sizes[:1] == (1,) and len(sizes) == 4 else 0][0]
        if chunk[at] in "23456789" and not head[-1:].isalnum():
            return "-" in chunk or ")" in chunk or "." in chunk or _phone_cue(text, start, end)
    if _DATE.match(chunk):
        return False
    return _phone_cue(text, start, end) and not (len(sizes) == 1 and digits > 12)


def _phone_cue(text: str, start: int, end: int) -> bool:
    before = text[max(0, start - _CUE_REACH) : start].lower()
    hinted = any([hint in before for hint in _PHONE_HINTS])
    if hinted and _PHONE_BEFORE.search(before.rstrip("(+")):
        return True
    return _PHONE_AFTER.match(text[end : end + 24].lower()) is not None


def _is_birth_date(text: str, start: int, chunk: str) -> bool:
    if not _DATE.match(chunk):
        return False
    return _BORN.search(text[max(0, start - _CUE_REACH) : start].lower()) is not None


def _is_document(text: str, start: int) -> bool:
    before = text[max(0, start - _CUE_REACH) : start]
    cue = _DOCUMENT.search(before.lower())
    # Lower case can be longer than upper case; then positions do not carry over.
    if cue is None or len(before) != len(before.lower()):
        return False
    begin = start - len(before) + cue.end()
    return _DOCUMENT_NUMBER.search(text[begin : begin + _CUE_REACH]) is not None


def _has_email(text: str) -> bool:
    at = text.find("@")
    while at >= 0:
        local = at and text[at - 1] in _LOCAL and text[max(0, at - 3) : at] != "git"
        if local and _DOMAIN.match(text, at + 1):
            return True
        at = text.find("@", at + 1)
    return False


def _has_spelt_email(text: str) -> bool:
    if not any([bracket in text for bracket in _BRACKETS]):
        return False
    for match in _SPELT_AT.finditer(text):
        at = match.start()
        if text[max(0, at - 2) : at].rstrip(" ")[-1:].isalnum():
            return True
    return False
