"""Which model card each target of the catalog gets: the configured one, else what the artefact's
cards say of its name, else none. One without a card is judged by its tier."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from gateway.config import Config, ConfigError
from gateway.config.model import BackendConfig, CardConfig
from routers.artefacts import find_artefact
from routers.cards import Base, Card, CardError, Cards, load_cards

log = logging.getLogger("tollhouse")

# Routers without an artefact: their probabilities are not those that listed cards refer to.
_WITHOUT = ("heuristic", "none")


def build_cards(config: Config) -> dict[str, Card]:
    """Cards by `backend/model`. Raises ConfigError naming the key."""
    return _assign(config, _listed(config))


def activated_cards(config: Config, directory: Path) -> dict[str, Card]:
    """The same for another artefact than the configured one: a refit that was activated.

    Raises CardError. A refit may list fewer models than the artefact it came from: a `like` that it
    does not know leaves that model without a card, and says so in the log.
    """
    listed = load_cards(directory)
    known = {}
    for target, given in config.router.cards.items():
        if given.like and listed.listed(given.like) is None:
            log.warning("router.cards.%s.like: %r has no card in %s", target, given.like, directory)
            known[target] = CardConfig(base=_tier(config.backends[target.partition("/")[0]]))
        else:
            known[target] = given
    router = msgspec.structs.replace(config.router, cards=known)
    try:
        return _assign(msgspec.structs.replace(config, router=router), listed)
    except ConfigError as exc:
        # The configuration was right for its own artefact: this one's cards do not fit it.
        raise CardError(str(exc)) from exc


def _assign(config: Config, listed: Cards) -> dict[str, Card]:
    found: dict[str, Card] = {}
    for name, backend in config.backends.items():
        for model, settings in backend.models.items():
            target = f"{name}/{model}"
            given = config.router.cards.get(target)
            if given is not None:
                found[target] = _configured(given, listed, backend, target)
                continue
            if backend.stand_in or backend.provider == "scripted":
                # What stands in for a model has no ability of its own.
                continue
            card = listed.find(settings.upstream or model, target)
            if card is not None:
                found[target] = card
    return found


def _listed(config: Config) -> Cards:
    settings = config.router
    if settings.artefact in _WITHOUT:
        return Cards()
    try:
        return load_cards(find_artefact(settings.artefact))
    except CardError as exc:
        if settings.on_missing == "fail":
            raise ConfigError("router.artefact", str(exc)) from exc
        log.error("router.artefact: %s; no model has a card of it", exc)
        return Cards()


def _tier(backend: BackendConfig) -> Base:
    return "local" if backend.tier == "local" else "frontier"


def _configured(given: CardConfig, listed: Cards, backend: BackendConfig, target: str) -> Card:
    where = f"router.cards.{target}"
    card = Card(base=given.base or _tier(backend))
    if given.like:
        try:
            card = listed.like(given.like)
        except CardError as exc:
            raise ConfigError(f"{where}.like", str(exc)) from exc
    try:
        return msgspec.structs.replace(
            card, offset=card.offset + (given.offset or 0.0), origin="configured"
        )
    except ValueError as exc:
        raise ConfigError(f"{where}.offset", str(exc)) from exc
