"""Which numbers are somebody's: groupings, check digits and the cues they need.

A number whose check digit a random number passes once in ten needs a cue near it. Sources: ISO
7812 (cards, Luhn), ISO 13616 (IBAN), and the national definitions as python-stdnum has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from operator import mul

import msgspec
from stdnum import iban
from stdnum.at import vnr
from stdnum.au import tfn
from stdnum.be import nn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.pt import nif
from stdnum.se import personnummer
from stdnum.us import itin, ssn

Shape = tuple[int, ...]
_Valid = Callable[[str], bool]
_PENSION_WEIGHTS = (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1)
_DOUBLED = bytes.maketrans(b"0123456789", b"0246813579")
_VALUES = bytes.maketrans(b"0123456789", bytes(range(10)))


class Cue(msgspec.Struct, frozen=True):
    """Words that must stand near a number. `hints` are plain pieces of the pattern, one of which
    is in every text that the pattern matches: far cheaper to look for."""

    pattern: re.Pattern[str]
    hints: tuple[str, ...]

    def found(self, lower: str) -> bool:
        return any([hint in lower for hint in self.hints]) and bool(self.pattern.search(lower))


class Check(msgspec.Struct, frozen=True):
    """`cue` must be found near the number; `dashed` lets hyphens between all groups stand in
    for it. `valid` is given the bare digits."""

    kind: str
    valid: Callable[[str], bool]
    cue: Cue | None = None
    dashed: bool = False


def is_card(digits: str) -> bool:
    """Luhn, and a leading part and length that a card network issues."""
    return _issued(digits) and has_luhn(digits) and len(set(digits)) > 1


def has_luhn(digits: str) -> bool:
    """Luhn's sum over bare digits; python-stdnum's also cleans its input and is far slower."""
    codes = digits.encode()
    doubled = codes[-2::-2].translate(_DOUBLED)
    return (sum(codes[-1::-2]) + sum(doubled) - len(codes) * ord("0")) % 10 == 0


def _issued(digits: str) -> bool:
    size, two, four = len(digits), int(digits[:2]), int(digits[:4])
    if digits[0] == "4":
        return size in (13, 16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return size == 16
    if two in (34, 37):
        return size == 15
    if two in (36, 38, 39) or 300 <= four // 10 <= 305:
        return size == 14
    if four == 6011 or two == 65 or 644 <= four // 10 <= 649 or 3528 <= four <= 3589:
        return 16 <= size <= 19
    return (two == 62 or 2200 <= four <= 2204) and 16 <= size <= 19


def _weighed(weights: tuple[int, ...], modulus: int, valid: Callable[[str], bool]) -> _Valid:
    """`valid`, asked only of digits whose weighted sum is divisible: that is the check digit's own
    rule, and costs a tenth of all that python-stdnum looks at."""
    return lambda digits: _sum(weights, digits) % modulus == 0 and valid(digits)


def _sum(weights: Iterable[int], digits: str) -> int:
    return sum(map(mul, weights, digits.encode().translate(_VALUES)))


def _kept(rule: Callable[[str], bool], valid: Callable[[str], bool]) -> _Valid:
    """`valid`, asked only of digits that keep the rule, which all valid ones do and which is far
    cheaper."""
    return lambda digits: rule(digits) and valid(digits)


def _is_complement_of_11(digits: str) -> bool:
    """Whether the last of the digits is the check digit of those before it: 11 less their sum by
    weights that fall to 2, modulo 11, and 0 for 10."""
    return -_sum(range(len(digits), 1, -1), digits) % 11 % 10 == int(digits[-1])


def _is_complement_of_97(digits: str) -> bool:
    """Whether the last two digits are 97 less the rest of those before them, divided by 97."""
    return 97 - int(digits[:-2]) % 97 == int(digits[-2:])


def _may_be_belgian(digits: str) -> bool:
    """Those born from 2000 on have a 2 before the number that is divided."""
    return _is_complement_of_97(digits) or _is_complement_of_97(f"2{digits}")


def _may_be_german(digits: str) -> bool:
    """Of the first ten digits of a tax number one is there two or three times, others once."""
    return 8 <= len(set(digits[:10])) <= 9


def _begins_with_a_day(digits: str) -> bool:
    return "01" <= digits[:2] <= "31" and "01" <= digits[2:4] <= "12"


def _is_us(digits: str) -> bool:
    return bool(ssn.is_valid(digits) or itin.is_valid(digits))


def _is_swedish(digits: str) -> bool:
    """Coordination numbers too: the day is 60 higher (Skatteverket, SKV 707)."""
    if digits[-6] in "6789":
        day = f"{int(digits[-6]) - 6}{digits[-5]}"
        return has_luhn(digits[-10:]) and "01" <= digits[-8:-6] <= "12" and "01" <= day <= "31"
    return has_luhn(digits[-10:]) and bool(personnummer.is_valid(f"{digits[:-4]}-{digits[-4:]}"))


def _is_spanish_insured(digits: str) -> bool:
    """The number of the social security: province, number and two check digits."""
    province, number = int(digits[:2]), int(digits[2:-2])
    whole = number + province * 10_000_000 if number < 10_000_000 else int(digits[:-2])
    return whole % 97 == int(digits[-2:])


def is_german_pension(number: str) -> bool:
    """Of the pension insurance, without separators: area, birth date, letter of the name, serial
    number and check digit (VKVV, section 2)."""
    digits = f"{number[:8]}{ord(number[8]) - ord('A') + 1:02d}{number[9:]}"
    weighted = [int(c) * weight for c, weight in zip(digits, _PENSION_WEIGHTS, strict=False)]
    born = "01" <= number[2:4] <= "31" and "01" <= number[4:6] <= "12"
    return born and sum(sum(divmod(value, 10)) for value in weighted) % 10 == int(digits[-1])


def _is_finnish(digits: str) -> bool:
    return bool(hetu.is_valid(f"{digits[:6]}-{digits[6:]}"))


_NOT_AFTER, _NOT_BEFORE = r"(?<![^\W_])", r"(?![^\W_])"


def _cue(*words: str) -> Cue:
    """`|` at an end of a word: no other letter or digit may touch it there. A blank may be `_`, as
    in names of fields, or nothing."""
    patterns = [
        re.sub(r"^\||\|$", lambda at: _NOT_AFTER if at.start() == 0 else _NOT_BEFORE, word)
        for word in words
    ]
    hints = tuple(word.strip("|").partition(" ")[0] for word in words)
    return Cue(re.compile("|".join(patterns).replace(" ", "[ _]?")), hints)


_SSN = _cue("ssn", "social security", "|itin|", "tax payer")
_CARD = _cue("card", "karte", "carte", "tarjeta", "carta di", "visa", "maestro", "kreditk")
_STEUER = _cue("steuer", "|tin|", "tax id", "idnr", "id-nr")
_BSN = _cue("bsn", "burgerservice", "sofi")
_NHS = _cue("|nhs|")
_SE = _cue("personnummer", "personal id", "personnr", "persnr", "pers.nr", "samordning")
_FI = _cue("hetu", "henkilötunnus")
_DK = _cue("|cpr|", "personnummer", "personnr")
_CA = _cue("|sin|", "social insurance", "assurance sociale")
_PT = _cue("|nif|", "contribuinte", "utente")
_AU = _cue("|tfn|", "tax file")
_IN = _cue("aadhaar", "aadhar", "uidai")
_ES = _cue("|nss|", "seguridad social", "afiliación", "afiliacion")
_AT = _cue("svnr", "sv-nr", "sozialversicherung", "versicherungsnummer")

_CARD_SHAPES: tuple[Shape, ...] = (
    *((size,) for size in range(13, 20)),
    *((4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (8, 8), (4, 12), (4, 4, 8), (6, 10)),
)

_TAX_ID = _kept(_may_be_german, idnr.is_valid)
_IN_EAN = (1, 3) * 6 + (1,)
_FALLING = tuple(range(10, 0, -1))

_TABLE: tuple[tuple[Check, tuple[Shape, ...]], ...] = (
    (Check("card", is_card), _CARD_SHAPES),
    (Check("card", has_luhn, _CARD), ((12,), (13,), (14,), (15,), (16,), (4, 4, 4))),
    (Check("us_ssn", _is_us, _SSN, dashed=True), ((3, 2, 4),)),
    (Check("us_ssn", _is_us, _SSN), ((9,),)),
    (Check("de_tax_id", _TAX_ID), ((2, 3, 3, 3),)),
    (Check("de_tax_id", _TAX_ID, _STEUER), ((11,),)),
    (
        Check("fr_nir", _kept(_is_complement_of_97, nir.is_valid)),
        ((15,), (13, 2), (1, 2, 2, 2, 3, 3, 2), (1, 2, 2, 5, 3, 2), (1, 2, 2, 2, 6, 2)),
    ),
    (
        Check("nl_bsn", _weighed((*_FALLING[1:-1], -1), 11, bsn.is_valid), _BSN),
        ((9,), (4, 2, 3), (3, 3, 3), (4, 5)),
    ),
    (Check("uk_nhs", _weighed(_FALLING, 11, nhs.is_valid), _NHS), ((10,), (3, 3, 4))),
    (Check("pl_pesel", _weighed((1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), 10, pesel.is_valid)), ((11,),)),
    (
        Check("br_cpf", _kept(lambda d: _is_complement_of_11(d[:10]), cpf.is_valid)),
        ((11,), (3, 3, 3, 2), (9, 2)),
    ),
    (
        Check("be_nn", _kept(_may_be_belgian, nn.is_valid)),
        ((11,), (2, 2, 2, 3, 2), (6, 3, 2), (6, 5)),
    ),
    (Check("ch_ahv", _weighed(_IN_EAN, 10, ahv.is_valid)), ((13,), (3, 4, 4, 2))),
    (Check("se_personnummer", _is_swedish, _SE, dashed=True), ((6, 4), (8, 4))),
    (Check("se_personnummer", _is_swedish, _SE), ((10,), (12,))),
    (Check("fi_hetu", _is_finnish, _FI, dashed=True), ((6, 4),)),
    (
        Check("no_fnr", _weighed((5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1), 11, fodselsnummer.is_valid)),
        ((11,), (6, 5)),
    ),
    (Check("es_nss", _is_spanish_insured, _ES), ((12,), (2, 8, 2), (2, 10))),
    (Check("dk_cpr", _kept(_begins_with_a_day, cpr.is_valid), _DK), ((10,), (6, 4))),
    (Check("ca_sin", _kept(has_luhn, sin.is_valid), _CA), ((9,), (3, 3, 3))),
    (Check("pt_nif", _kept(_is_complement_of_11, nif.is_valid), _PT), ((9,), (3, 3, 3))),
    (
        Check("au_tfn", _weighed((1, 4, 3, 7, 5, 8, 6, 9, 10), 11, tfn.is_valid), _AU),
        ((8,), (9,), (3, 3, 3)),
    ),
    (Check("in_aadhaar", aadhaar.is_valid, _IN), ((12,), (4, 4, 4))),
    (
        Check("at_vnr", _weighed((3, 7, 9, -1, 5, 8, 4, 2, 1, 6), 11, vnr.is_valid), _AT),
        ((10,), (4, 6)),
    ),
)


def _by_shape() -> dict[Shape, tuple[Check, ...]]:
    table: dict[Shape, tuple[Check, ...]] = {}
    for check, shapes in _TABLE:
        for shape in shapes:
            table[shape] = (*table.get(shape, ()), check)
    return table


CHECKS = _by_shape()
# Every beginning of a shape: a window over digit groups stops growing when it leaves this set.
PREFIXES = frozenset(shape[:size] for shape in CHECKS for size in range(1, len(shape) + 1))

# ISO 13616 registry: country and total length.
_IBAN_FORMS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 "
    "DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 "
    "HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 "
    "MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 "
    "RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 "
    "VG24 XK20 YE30"
)
_IBAN_LENGTHS = {form[:2]: int(form[2:]) for form in _IBAN_FORMS.split()}
_LETTERS = str.maketrans({chr(ord("A") + at): str(10 + at) for at in range(26)})
_SEPARATED = re.compile(r"[ \t\-./_]+")


def has_iban(text: str, at: int) -> bool:
    """Whether an IBAN begins at `at`; spaces, dots and dashes inside it are looked through."""
    length = _IBAN_LENGTHS.get(text[at : at + 2].upper())
    if length is None:
        return False
    number = _SEPARATED.sub("", text[at : at + 2 * length])[:length].upper()
    if len(number) < length or not (number.isascii() and number.isalnum()):
        return False
    # The sum first: it costs a tenth of the look-up of the country's form.
    if int((number[4:] + number[:4]).translate(_LETTERS)) % 97 != 1:
        return False
    return bool(iban.is_valid(number, check_country=False))
