"""Model cards: how one backend's ability differs from the reference that the router was fitted on.

The router says how likely *a* local and *a* frontier model answer well. A card moves one of these
two on the logit scale: p = sigmoid(slope * logit(p_base) + offset + domain offset). So a new
backend needs a card, not a new encoder or new heads; without labels its name gives a prior.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import msgspec

from routers.modelnames import canonical, loose, traits
from routers.types import Score, is_candidate_id

FILE = "cards.json"
Base = Literal["local", "frontier"]
EDGE = 1e-6
EDGE_LOGIT = math.log((1.0 - EDGE) / EDGE)
# Beyond this a card says always or never, which no count of labels shows.
MAX_OFFSET = 6.0
MAX_SLOPE = 4.0


class CardError(ValueError):
    """A card that cannot be used, or a name that no card has."""


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`base`: the reference probability that it starts from. `slope` is above 0; `offset` is on
    the logit scale, and so are the `domain` offsets, which come on top.

    `origin`: `fitted` to labels of this very backend, `listed` for a model of this name, `prior`
    by the size and age that the name tells, or `configured`. `rows`: labels behind it. `error`:
    standard error of the offset. `like`: the listed model it was taken from.
    """

    base: Base = "local"
    slope: float = 1.0
    offset: float = 0.0
    domain: dict[str, float] = {}
    origin: Literal["fitted", "listed", "prior", "configured"] = "listed"
    rows: int = 0
    error: float = 0.0
    like: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.slope <= MAX_SLOPE:
            raise ValueError(f"slope must be above 0 and at most {MAX_SLOPE:g}, is {self.slope}")
        for name, value in (("offset", self.offset), *self.domain.items()):
            if not -MAX_OFFSET <= value <= MAX_OFFSET:
                raise ValueError(
                    f"{name} must be between -{MAX_OFFSET:g} and {MAX_OFFSET:g}, is {value}"
                )
        if not 0 <= self.error < math.inf:
            raise ValueError(f"error must not be negative, is {self.error}")

    def describe(self) -> str:
        """One line for people."""
        which = f"like {self.like}, " if self.like else ""
        slope = "" if self.slope == 1 else f", slope {self.slope:.2f}"
        error = f" +-{self.error:.2f}" if self.error else ""
        return f"{self.origin}: {which}{self.base} {self.offset:+.2f}{error}{slope}"


class Prior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Offset of an open model by its size and age, a regression over the listed ones:
    intercept + per_log_size * ln(size / 8) + per_year * (year - 2024.25).

    `sizes` (billions of parameters) and `years` are the ranges of the models it was fitted on;
    what lies outside is taken to the edge, other than a smaller size: there the line goes on,
    since rating a tiny model too high costs answers and rating it too low only money.
    `error`: root mean square error on the model left out.
    """

    intercept: float
    per_log_size: float
    per_year: float
    sizes: tuple[float, float]
    years: tuple[float, float]
    error: float
    models: int

    def card(self, name: str) -> Card | None:
        """None for a name that tells no size: it is judged by its tier. So are closed models,
        whose names tell none."""
        found = traits(name)
        if found.size is None:
            return None
        return Card(
            base="local",
            offset=round(self.offset(found.size, found.year), 4),
            origin="prior",
            error=self.error,
        )

    def offset(self, size: float, year: float | None) -> float:
        """`year` None is taken as the middle of the regression."""
        size = min(size, self.sizes[1])
        year = YEAR if year is None else min(max(year, self.years[0]), self.years[1])
        slope = self.per_log_size * math.log(size / SIZE)
        return self.intercept + slope + self.per_year * (year - YEAR)


SIZE = 8.0
YEAR = 2024.25


class Cards(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The cards that come with an artefact, by model name.

    A key with `*` is a pattern. A key `backend/model` is a card fitted for that very backend.
    `reference`: the models at offset 0 of each base. `notes`: how well the cards did.
    """

    cards: dict[str, Card] = {}
    prior: Prior | None = None
    reference: dict[str, str] = {}
    notes: dict[str, float] = {}

    def find(self, model: str, target: str = "") -> Card | None:
        """The card of `target` (`backend/model`), else the listed one that `model` names, else
        the prior by its name, else None."""
        fitted = self.cards.get(target)
        if fitted is not None:
            return fitted
        name = self.listed(model)
        if name is not None:
            return msgspec.structs.replace(self.cards[name], like=name)
        return self.prior.card(model) if self.prior is not None else None

    def listed(self, model: str) -> str | None:
        """The key of the listed card for a model of this name.

        In this order: the same canonical name; a pattern; the same name but for revision and chat
        marks, where the chat model and the latest revision win, since that is what is served.
        """
        wanted, rough = canonical(model), loose(model)
        if not wanted:
            return None
        near: list[str] = []
        for name in self.cards:
            if "/" in name:
                continue
            if canonical(name) == wanted:
                return name
            if "*" in name:
                if fnmatchcase(model.lower().rsplit("/", 1)[-1], name):
                    near.append(name)
            elif loose(name).removesuffix(" base") == rough.removesuffix(" base"):
                near.append(name)
        base = rough.endswith(" base")
        return max(near, key=lambda name: (_is_base(name) == base, name), default=None)

    def like(self, name: str) -> Card:
        """The listed card that `name` means. Raises CardError naming the nearest ones."""
        found = self.listed(name)
        if found is not None:
            return msgspec.structs.replace(self.cards[found], like=found)
        known = [key for key in sorted(self.cards) if "/" not in key]
        if not known:
            raise CardError(f"no card {name!r}: the router's artefact lists none")
        rough: dict[str, list[str]] = {}
        for key in known:
            rough.setdefault(loose(key).removesuffix(" base"), []).append(key)
        near = difflib.get_close_matches(loose(name), rough, n=2, cutoff=0.5)
        listed = ", ".join([key for group in near for key in rough[group]] if near else known)
        raise CardError(f"no card {name!r}; {'near' if near else 'known'}: {listed}")


class CardOrder(msgspec.Struct, frozen=True, kw_only=True):
    """`target`: `backend/model`. `base` or `like` (a listed model), not both, say what is known of
    it before; without them the artefact's cards are asked by the model's name. `sole`: the sides on
    which no other model could have answered; a label there whose row names no model is taken to be
    of this one. `name`: of the new artefact."""

    target: str
    base: Base | None = None
    like: str = ""
    sole: tuple[Base, ...] = ()
    name: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if not is_candidate_id(self.target):
            raise ValueError(f"{self.target!r} is not BACKEND/MODEL")
        if self.base is not None and self.like:
            raise ValueError("a tier and a model that it is like: give one of the two")


def _is_base(name: str) -> bool:
    return loose(name).endswith(" base")


_DECODER = msgspec.json.Decoder(Cards)
_ENCODER = msgspec.json.Encoder(order="deterministic")


def load_cards(directory: Path) -> Cards:
    """The cards of an artefact; none when it has no `cards.json`. Raises CardError."""
    try:
        return _DECODER.decode((directory / FILE).read_bytes())
    except FileNotFoundError:
        return Cards()
    except OSError as exc:
        raise CardError(f"{FILE}: cannot be read: {exc.strerror}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise CardError(f"{FILE}: {exc}") from exc


def encode_cards(cards: Cards) -> bytes:
    """The bytes of `cards.json`; the same cards give the same bytes."""
    return msgspec.json.format(_ENCODER.encode(cards), indent=2) + b"\n"


def with_card(cards: Cards, target: str, card: Card) -> Cards:
    """The same cards with one fitted for `target` (`backend/model`)."""
    return msgspec.structs.replace(cards, cards={**cards.cards, target: card})


def without_base(cards: Cards, base: Base) -> Cards:
    """The cards for heads whose `base` probability now means a customer's model.

    Heads refitted to a customer's labels say how likely *that* model answers well: applied on top,
    the old offsets would count its ability twice. Nobody knows which listed model the labels are
    of, so the cards of this base, and the prior with the local one, are left out.
    """
    return msgspec.structs.replace(
        cards,
        cards={key: card for key, card in cards.cards.items() if card.base != base},
        prior=cards.prior if base == "frontier" else None,
        reference={**cards.reference, base: ""},
    )


def logit(p: float) -> float:
    """Finite for every p, also for 0 and 1."""
    p = max(EDGE, min(1.0 - EDGE, p))
    return math.log(p / (1.0 - p))


def p_ok(card: Card, p_local: float, p_frontier: float, domain: str | None = None) -> float:
    """The probability that this model answers acceptably, in (0, 1)."""
    return _carded(card, logit(p_local if card.base == "local" else p_frontier), domain)


def _carded(card: Card, base: float, domain: str | None) -> float:
    z = card.slope * base + card.offset
    if domain is not None and card.domain:
        z += card.domain.get(domain, 0.0)
    # Comparisons cost a third of min and max, and this runs for every candidate.
    if z > EDGE_LOGIT:
        return 1.0 - EDGE
    return EDGE if z < -EDGE_LOGIT else 1.0 / (1.0 + math.exp(-z))


def apply_cards(score: Score, cards: Mapping[str, Card]) -> Score:
    """The score with `p_ok` of every candidate that has a card, by candidate id.

    Runs on every scored request: some microseconds for ten cards. An unclassified score stays as
    it is.
    """
    local, frontier = score.p_local_ok, score.p_frontier_ok
    if not cards or local is None or frontier is None:
        return score
    z_local, z_frontier, domain = logit(local), logit(frontier), score.domain
    found = dict(score.p_ok)
    for target, card in cards.items():
        found[target] = _carded(card, z_local if card.base == "local" else z_frontier, domain)
    return msgspec.structs.replace(score, p_ok=found)
