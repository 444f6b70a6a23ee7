"""Personal data with a form: cards, accounts, national ids, e-mail, telephone, birth dates."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.ie import pps
from stdnum.it import codicefiscale

from routers.patterns.numbers import (
    CHECKS,
    PREFIXES,
    Check,
    Cue,
    Shape,
    has_iban,
    is_card,
    is_german_pension,
)
from routers.patterns.windows import REACH, WINDOW, Steps, has_any, matches

# Digits and separators exclude each other, so there is one way to match: linear. A chunk of very
# many groups is found in several matches; `lastindex` is None for one group, 1 for two.
_GAP = r"[ \t\-./()_]{1,3}"
_CHUNK = re.compile(rf"[0-9]+({_GAP}[0-9]+)?((?:{_GAP}[0-9]+){{1,254}})?")
_GROUP = re.compile(r"[0-9]+")
_GAP_ALONE = re.compile(_GAP)
# The longest chunk that is weighed as a whole: a card of single digits, three signs between each.
# No shape is longer either.
_WHOLE = 19 + 18 * 3
# As many groups as the longest shape has, none of which has twenty digits.
_MOST = max(map(len, PREFIXES))
_GROUPS = re.compile(f"(?:{_GAP}".join(["([0-9]{1,20})"] * _MOST) + ")?" * (_MOST - 1))


def _shapes_after(prefix: Shape) -> str:
    """A regex of what makes these groups a shape with a check."""
    widths = sorted(shape[-1] for shape in PREFIXES if shape[:-1] == prefix)
    ends = [width for width in widths if (*prefix, width) in CHECKS]
    found = [f"[0-9]{{{width}}}(?![0-9])" for width in ends]
    if ends and ends == list(range(ends[0], ends[-1] + 1)):
        found = [f"[0-9]{{{ends[0]},{ends[-1]}}}(?![0-9])"]
    for width in widths:
        if width not in ends:
            found.append(f"[0-9]{{{width}}}{_GAP}{_shapes_after((*prefix, width))}")
    return f"(?:{'|'.join(found)})"


_SHAPED = re.compile(rf"(?<![0-9])(?={_shapes_after(())})[0-9]")

_EMAIL = re.compile(r"@(?<=[\w.%+\-']@)(?<!git@)(?:[\w\-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![^\W_])")
_SPELT_AT = re.compile(
    r"[(\[{<] ?(?:at|AT|ät) ?[)\]}>] ?[\w\-]{1,63}"
    r"(?: ?[(\[{<] ?(?:dot|DOT|punkt|point) ?[)\]}>] ?|\.)[A-Za-z]{2,24}"
)
_BRACKETS = ("(", "[", "{", "<")

# Words may be parts of the name of a field (`phone_number`, `dateOfBirth`): `_` may touch them, but
# no letter.
_PHONE_BEFORE = re.compile(
    r"(?<![^\W_])(?:(?:mobile|cell|tele)?phone(?:number|no|nr)?|tels?|tél|telefon[^\W\d_]{0,8}|"
    r"telefoon(?:nummer|nr)?|telefono|telefone|teléfono|téléphone|mobile|mobil(?:nummer|nr|tel)?|"
    r"handy(?:nummer|nr)?|móvil|telemóvel|cell|portable|fax(?:nummer|nr)?|whatsapp|call|ring|calling|"
    r"dial|anruf|rufnummer|rückruf|appelez|komórk[aię]|kom\.|tlf|tfn|puh|puhelin(?:numero)?|"
    r"phone number|reach (?:me|us|you|him|her)|answering|sms|text me)(?![^\W\d_])[^0-9\n]{0,24}$"
)
# A piece of each word above: looking for these first is far cheaper.
_PHONE_HINTS = (
    *("phone", "tel", "mobi", "handy", "móvil", "cell", "portable", "fax", "whatsapp", "call"),
    *("ring", "dial", "anruf", "rufnummer", "reach ", "answering", "sms", "text me", "tél"),
    *("rückruf", "appelez", "kom.", "komórk", "tlf", "tfn", "puh"),
)
_PHONE_AFTER = re.compile(r"^[\s\-x0-9]{0,8}[(\-\s]?(?:office|mobile|fax|cell|home|phone|tel)\b")
_DATE = re.compile(
    r"(?:(?:19|20)[0-9]{2}[\-./][0-9]{1,2}[\-./][0-9]{1,2}|"
    r"[0-9]{1,2}[\-./][0-9]{1,2}[\-./](?:[0-9]{4}|[0-9]{2}))(?![\-./]?[0-9])"
)
_BIRTH_WORDS = (
    r"dob|d\.o\.b|date[ _]?of[ _]?birth|birth[ _]?(?:date|day)|geb(?:oren)?|geburts(?:datum|tag)|"
    r"né(?:e|\(e\))? le|date[ _]?(?:de[ _]?)?naissance|"
    r"f(?:echa|\.)[ _]?(?:de[ _]?)?nac(?:imiento)?|nacid[oa]|nat[oa](?: a [^\W\d_]{2,16})? il|"
    r"data[ _]?di[ _]?nascita|geboorte(?:datum|dag)|ur\.|urodz(?:on[aey]|enia)|nascid[oa]|"
    r"data[ _]?(?:de[ _]?)?nasc(?:imento)?|född|født|fødd|födelse(?:datum|dag)|"
    r"fødsels(?:dato|dag)|syntynyt|syntymä(?:aika|päivä)"
)
# A piece of each of them.
_BIRTH_HINTS = (
    *("dob", "d.o.b", "birth", "geb", "né", "naissance", "nac", "nato ", "nata ", "nasc", "ur."),
    *("urodz", "föd", "fød", "synty"),
)


def _after_birth(words: str, date: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])(?:{words})(?![^\W\d_])[^0-9\n]{{0,24}}{date}$")


_BORN = _after_birth(f"{_BIRTH_WORDS}|born", "")
# A date in words, up to its year. Biographies say so when somebody was `born`.
_BORN_IN_WORDS = _after_birth(
    _BIRTH_WORDS,
    r"[0-9]{1,2}(?:\.|(?:st|nd|rd|th)?,| ?(?:\.|st|nd|rd|th|er|o)?[ \-](?:de |of )?[^\W\d_]{3,12}"
    r"\.?,?[ \-]?(?:de|del)?) ?",
)
_DAY = r"[ \-./]{1,3}"
_BIRTH_DATE = re.compile(
    rf"(?:(?:19|20)[0-9]{{2}}{_DAY}[0-9]{{1,2}}{_DAY}[0-9]{{1,2}}|"
    rf"[0-9]{{1,2}}{_DAY}[0-9]{{1,2}}{_DAY}(?:[0-9]{{4}}|[0-9]{{2}})|"
    r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:[0-2][0-9]|3[01]))(?![\-./]?[0-9])"
)
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")
_DOCUMENT = re.compile(
    r"(?:driver'?s?|driving)[ _]?licen[cs]e|passport[ _]?(?:no|num)|führerschein|reisepass|"
    r"pass(?:nummer|nr)|personalausweis|ausweis(?:nummer|nr)|permis de conduire|passeport|"
    r"carte d.identité|pasaporte|permiso de conducir|carta d.identità|passaporto|passaporte|"
    r"cartão de cidadão|rijbewijs|paspoort|identiteitskaart|paszport|dow[oó]du? osobist|"
    r"körkort|førerkort|kørekort"
)
_DOCUMENT_HINTS = (
    *("licen", "pass", "perm", "führ", "ausweis", "identi", "cidadão", "rijbew", "paspo", "paszp"),
    *("osobist", "körk", "førerk", "kørek"),
)
_DOCUMENT_NUMBER = re.compile(r"\b[A-Z]{0,3}[0-9][0-9A-Z]{4,17}\b", re.ASCII | re.IGNORECASE)
_NINO = re.compile(
    r"(?<![A-Z0-9])[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ \-]?(?:[0-9]{2}[ \-]?){3}[A-D](?![A-Z0-9])"
)
_SEPARATORS = re.compile(r"[ .\-/]")
_CORSICAN = re.compile(
    r"[12](?:[ .\-]?[0-9]{2}){2}[ .\-]?2[AaBb](?:[ .\-]?[0-9]{3}){2}[ .\-]?[0-9]{2}(?![0-9])"
)
_PENSION = re.compile(r"[0-9]{2}[ \-/]?[0-9]{6}[ \-/]?[A-Za-z][ \-/]?[0-9]{2}[ \-/]?[0-9](?![0-9])")
# Signs of the century in Finnish numbers, those of 2023 included.
_CENTURIES = tuple("ABCDEFUVWXY")
_CHECK_LETTER = re.compile(r"[ \-]?([A-Za-z])(?![A-Za-z0-9])")
_CUE_REACH = 48
# Characters of numbers that are looked at before others get their turn: they may cost a hundred
# times what prose does.
_AT_A_TIME = 1 << 10


def personal_kinds(text: str) -> Steps[set[str]]:
    """The kinds of personal data in normalised text. Linear, in memory that does not grow with
    it."""
    kinds: set[str] = set()
    scan: _Scan | None = None
    rest = _AT_A_TIME
    for match in _chunks(text):
        if scan is None:
            scan = _Scan(text, kinds)
        scan.look_at(match)
        if match.end() >= rest:
            rest = match.end() + _AT_A_TIME
            yield
    if (yield from _has_email(text)) or (yield from _has_spelt_email(text)):
        kinds.add("email")
    return kinds


def _chunks(text: str) -> Iterator[re.Match[str]]:
    """The chunks of a text, read in windows."""
    return _CHUNK.finditer(text) if len(text) <= WINDOW else _chunks_in_windows(text)


def _chunks_in_windows(text: str) -> Iterator[re.Match[str]]:
    start, size = 0, len(text)
    while start < size:
        stop = min(start + WINDOW, size)
        for match in _CHUNK.finditer(text, start, stop):
            if match.end() + 3 < stop or stop == size:
                yield match
            elif whole := _CHUNK.match(text, match.start()):
                stop = whole.end()
                yield whole
                break
        start = stop


class _Scan:
    """One pass over the digit chunks of a text: digit groups with separators between them, and
    the letters that touch them."""

    def __init__(self, text: str, kinds: set[str]) -> None:
        self._text = text
        self._kinds = kinds
        self._said: bool | None = None
        self._born: bool | None = None
        self._broken_off = -4
        self._block = -1
        self._heard: dict[int, bool] = {}
        self._lower = ""

    def look_at(self, match: re.Match[str]) -> None:
        text, kinds = self._text, self._kinds
        start, end = match.span()
        size = end - start
        goes_on = start - self._broken_off <= 3 and self._goes_on(start)
        if size > _WHOLE:
            self._broken_off = end
        if goes_on:
            self._check_shapes(start, end)
            return
        if start and text[start - 1].isalpha():
            _after_letters(text, start, kinds)
        dated = size == 4 and "dob" not in kinds and self._tells_birth()
        if dated and _is_year_of_birth(text, start):
            kinds.add("dob")
        if size < 5 and not (start and text[start - 1].isalpha()):
            return
        documents = "id_document" not in kinds and self._names_document()
        if documents and _is_document(text, start):
            kinds.add("id_document")
        if size < 6:
            return
        if 6 <= size <= 12:
            digits = "".join(_GROUP.findall(text, start, end))
            if 6 <= len(digits) <= 9:
                _beside_letters(text, start, end, digits, kinds)
        if size >= 8:
            self._check_shapes(start, end, pair=match.lastindex == 1)
        if size <= _WHOLE:
            self._look_at_whole(start, match[0])

    def _goes_on(self, start: int) -> bool:
        """Whether this is the rest of a chunk that was too long for one match."""
        return _GAP_ALONE.fullmatch(self._text, self._broken_off, start) is not None

    def _look_at_whole(self, start: int, chunk: str) -> None:
        kinds, end = self._kinds, start + len(chunk)
        spans = [group.span() for group in _GROUP.finditer(chunk)]
        if len(spans) > 6 and "card" not in kinds:
            widths = {b - a for a, b in spans}
            total = sum([b - a for a, b in spans])
            even = 13 <= total <= 19 and widths in ({1}, {2})
            if even and is_card("".join([chunk[a:b] for a, b in spans])):
                kinds.add("card")
        if len(chunk) > 40:
            return
        if "phone" not in kinds and _is_phone(self._text, start, end, chunk, spans):
            kinds.add("phone")
        if "dob" not in kinds and _is_birth_date(self._text, start, chunk):
            kinds.add("dob")

    def _names_document(self) -> bool:
        """Whether the text has a word of a document at all; asked once, so that texts without one
        never pay for it."""
        if self._said is None:
            self._said = has_any(_DOCUMENT_HINTS, self._text)
        return self._said

    def _tells_birth(self) -> bool:
        """As `_names_document`, of a word of birth."""
        if self._born is None:
            self._born = has_any(_BIRTH_HINTS, self._text)
        return self._born

    def _check_shapes(self, start: int, end: int, *, pair: bool = False) -> None:
        """Every run of groups that begins in a chunk and has a shape with checks. `pair`: the
        chunk is two groups; what follows a decimal point is then a fraction."""
        text = self._text
        if end - start <= _WHOLE:
            found = _SHAPED.finditer(text, start, end)
        else:
            # A match of a very long chunk may end amid a shape.
            found = matches(_SHAPED, text, start, end, _WHOLE)
        for match in found:
            left = match.start()
            if pair and left > start and text[left - 1] == ".":
                continue
            run = _GROUPS.match(text, left)
            groups = run.groups("") if run else ()
            widths = tuple(map(len, groups))
            for size in range(1, _MOST + 1):
                shape = widths[:size]
                if shape not in PREFIXES:
                    break
                if shape in CHECKS and run:
                    self._check(left, run.end(size), groups[:size], CHECKS[shape])

    def _check(
        self, start: int, end: int, groups: tuple[str, ...], checks: tuple[Check, ...]
    ) -> None:
        digits = ""
        for check in checks:
            if check.kind in self._kinds:
                continue
            free = check.cue is None
            if check.dashed and not free:
                free = self._text.count("-", start, end) == len(groups) - 1
            if check.cue is not None and not free:
                free = self._hears(check.cue, start, end)
            if free:
                digits = digits or "".join(groups)
                if check.valid(digits):
                    self._kinds.add(check.kind)

    def _hears(self, cue: Cue, start: int, end: int) -> bool:
        """Whether the cue stands near. Its hints are asked once for all numbers around."""
        block = start // REACH
        if block != self._block:
            first = block * REACH
            reach = slice(max(0, first - _CUE_REACH), first + REACH + _WHOLE + _CUE_REACH)
            self._block, self._heard, self._lower = block, {}, self._text[reach].lower()
        heard = self._heard.get(id(cue))
        if heard is None:
            heard = self._heard[id(cue)] = any([hint in self._lower for hint in cue.hints])
        if not heard:
            return False
        near = self._text[max(0, start - _CUE_REACH) : end + _CUE_REACH]
        return cue.found(near.lower())


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
        if size == 6 and text[end : end + 1] in _CENTURIES and hetu.is_valid(text[start : end + 5]):
            kinds.add("fi_hetu")
    elif size == 8:
        if dni.calc_check_digit(digits) == letter[1].upper():
            kinds.add("es_dni")
    elif size == 7:
        first = text[max(0, start - 2) : start].rstrip("- ")[-1:]
        if first in ("X", "Y", "Z", "x", "y", "z") and nie.is_valid(first + digits + letter[1]):
            kinds.add("es_nie")
    elif size == 6 and _NINO.search(text[max(0, start - 4) : end + 3].upper()):
        kinds.add("uk_nino")
    elif size == 9 and text[start + 6] == "-" and hetu.is_valid(text[start : end + 1]):
        kinds.add("fi_hetu")
    if size in (6, 8):
        _around_a_letter(text, start, size, kinds)
    if size == 7 and "pps" in text[max(0, start - _CUE_REACH) : start].lower():
        code = text[start : end + 2]
        if pps.is_valid(code) or pps.is_valid(code[:8]):
            kinds.add("ie_pps")


def _around_a_letter(text: str, start: int, size: int, kinds: set[str]) -> None:
    """Numbers with a letter behind their first six or eight digits: of a French person born in
    Corsica; of the German pension insurance, which is a person's social security number."""
    if size == 6:
        corsican = _CORSICAN.match(text, start)
        if corsican and nir.is_valid(_SEPARATORS.sub("", corsican[0]).upper()):
            kinds.add("fr_nir")
        return
    pension = _PENSION.match(text, start)
    if pension and is_german_pension(_SEPARATORS.sub("", pension[0]).upper()):
        kinds.add("de_rvnr")


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
    if not _BIRTH_DATE.match(chunk):
        return False
    return _BORN.search(text[max(0, start - _CUE_REACH) : start].lower()) is not None


def _is_year_of_birth(text: str, start: int) -> bool:
    """Whether four digits are the year of a birth date in words (12 March 1961, March 12, 1961)."""
    if not _YEAR.match(text, start):
        return False
    return _BORN_IN_WORDS.search(text[max(0, start - _CUE_REACH) : start].lower()) is not None


def _is_document(text: str, start: int) -> bool:
    before = text[max(0, start - _CUE_REACH) : start]
    cue = _DOCUMENT.search(before.lower())
    # Lower case can be longer than upper case; then positions do not carry over.
    if cue is None or len(before) != len(before.lower()):
        return False
    begin = start - len(before) + cue.end()
    return _DOCUMENT_NUMBER.search(text[begin : begin + _CUE_REACH]) is not None


def _has_email(text: str) -> Steps[bool]:
    if "@" not in text:
        return False
    for start in range(0, len(text), WINDOW):
        if any(True for _ in matches(_EMAIL, text, start, min(start + WINDOW, len(text)))):
            return True
        yield
    return False


def _has_spelt_email(text: str) -> Steps[bool]:
    if not any([bracket in text for bracket in _BRACKETS]):
        return False
    for start in range(0, len(text), WINDOW):
        for match in matches(_SPELT_AT, text, start, min(start + WINDOW, len(text))):
            at = match.start()
            if text[max(0, at - 2) : at].rstrip(" ")[-1:].isalnum():
                return True
        yield
    return False
