"""An artefact's model cards come and go with it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backends.http import UpstreamTransport
from gateway.cards import activated_cards, build_cards
from gateway.catalog import Catalog
from gateway.compose import build_catalog
from gateway.config import Config, parse_config
from gateway.learning import CONFIGURED, Loaders, RefitNotReady, RouterSlot
from gateway.learning.activation import Activation
from gateway.learning.schema import refits
from gateway.records import Database
from gateway.store import Store
from routers.base import FixedRouter
from routers.cards import Card, Cards, encode_cards
from routers.types import Score

TARGET = "ward/special"
HOME, MINE = Card(offset=-0.2), Card(offset=0.9, origin="fitted", rows=40)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    write(tmp_path / "home", Cards(cards={TARGET: HOME, "big-7b": Card()}))
    return parse_config(
        f"""
        [router]
        artefact = "{tmp_path}/home"
        cards = {{ "ward/other" = {{ like = "big-7b", offset = 1.5 }} }}
        [backends.ward]
        provider = "vllm"
        base_url = "http://127.0.0.1:9/v1"
        tier = "local"
        models = {{ special = {{}}, other = {{}} }}
        """,
        {},
    )


@pytest.fixture
async def catalog(config: Config) -> AsyncIterator[Catalog]:
    found = build_catalog(config, {}, UpstreamTransport())
    yield found
    await found.aclose()


@pytest.fixture
async def activation(
    tmp_path: Path, config: Config, catalog: Catalog, database: Database, store: Store
) -> AsyncIterator[Activation]:
    made = activation_of(tmp_path, config, catalog, database, store)
    await made.start()
    yield made
    await made.aclose()


def activation_of(
    folder: Path, config: Config, catalog: Catalog, database: Database, store: Store
) -> Activation:
    loaders = Loaders(
        configured=lambda: FixedRouter(Score()),
        configured_cards=lambda: build_cards(config),
        artefact=lambda _: FixedRouter(Score()),
        cards=lambda directory: activated_cards(config, directory),
        use_cards=catalog.use_cards,
    )
    return Activation(RouterSlot(FixedRouter(Score())), database, store, folder, loaders)


def write(folder: Path, cards: Cards) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "cards.json").write_bytes(encode_cards(cards))


async def finished(database: Database, name: str) -> None:
    values = (name, "done", time.time(), "admin", "labels", "base", 9, "{}", "")
    row = dict(zip(refits.c.keys(), values, strict=True))
    await database.write(lambda connection: connection.execute(refits.insert().values(**row)))


async def test_cards_come_and_go_with_their_artefact(
    tmp_path: Path, catalog: Catalog, activation: Activation, database: Database
) -> None:
    write(tmp_path / "mine", Cards(cards={TARGET: MINE}))
    await finished(database, "mine")
    assert catalog.cards[TARGET] == HOME
    await activation.activate("mine", "admin")
    assert catalog.cards[TARGET] == MINE
    await activation.rollback("mine", "admin")
    assert catalog.cards[TARGET] == HOME
    await activation.activate("mine", "admin")
    await activation.activate(CONFIGURED, "admin")
    assert catalog.cards[TARGET] == HOME


async def test_cards_that_cannot_be_read_are_not_activated(
    tmp_path: Path, catalog: Catalog, activation: Activation, database: Database
) -> None:
    write(tmp_path / "bad", Cards())
    (tmp_path / "bad" / "cards.json").write_text('{"cards": {"ward/special": {"slope": 0}}}')
    await finished(database, "bad")
    with pytest.raises(RefitNotReady, match=r"'bad' cannot be used: cards\.json: slope"):
        await activation.activate("bad", "admin")
    assert (activation.active.name, catalog.cards[TARGET]) == (CONFIGURED, HOME)


async def test_cards_gone_bad_leave_the_configured_artefact(
    tmp_path: Path,
    config: Config,
    catalog: Catalog,
    activation: Activation,
    database: Database,
    store: Store,
) -> None:
    write(tmp_path / "mine", Cards(cards={TARGET: MINE}))
    await finished(database, "mine")
    await activation.activate("mine", "admin")
    (tmp_path / "mine" / "cards.json").write_text("{")
    catalog.use_cards(build_cards(config))
    started = activation_of(tmp_path, config, catalog, database, store)
    await started.start()
    assert (started.active.name, started.active.loaded) == ("mine", False)
    assert "cards.json" in str(started.active.problem)
    assert catalog.cards[TARGET] == HOME
    await started.aclose()


async def test_a_configured_card_that_the_refit_cannot_carry_is_refused(
    tmp_path: Path, catalog: Catalog, activation: Activation, database: Database
) -> None:
    write(tmp_path / "mine", Cards(cards={"big-7b": Card(offset=5.0)}))
    await finished(database, "mine")
    with pytest.raises(RefitNotReady, match=r"router\.cards\.ward/other\.offset"):
        await activation.activate("mine", "admin")
    assert catalog.cards[TARGET] == HOME
