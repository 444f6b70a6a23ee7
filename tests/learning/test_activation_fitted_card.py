"""An artefact with a fitted card is activated like any other."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from backends.http import UpstreamTransport
from gateway.cards import activated_cards, build_cards
from gateway.compose import build_catalog
from gateway.config import parse_config
from gateway.learning import CONFIGURED, Loaders, RouterSlot
from gateway.learning.activation import Activation
from gateway.learning.schema import refits
from gateway.records import Database
from gateway.store import Store
from routers.artefacts import find_artefact, open_router
from routers.cards import apply_cards
from routers.onnx.router import OnnxRouter
from routers.refit import CardOrder, ModelRows, run_card
from routers.types import Query, Turn

TARGET, NAME = "ward/special", "static-192"
CONFIG = f"""
[router]
artefact = "{NAME}"
[backends.ward]
provider = "vllm"
base_url = "http://127.0.0.1:9/v1"
tier = "local"
models = {{ special = {{}}, other = {{}} }}
"""


async def test_a_fitted_card_holds_from_its_activation_on(
    tmp_path: Path, database: Database, store: Store
) -> None:
    texts = [f"What is the capital of the {i}th land on my list?" for i in range(60)]
    queries = [Query((Turn("user", text),)) for text in texts]
    unknown: list[float | None] = [None] * 60
    wrong: list[float | None] = [float(i % 10 == 0) for i in range(60)]
    rows = ModelRows(queries, {"ok": wrong, "local_ok": unknown, "frontier_ok": unknown})
    order = CardOrder(target=TARGET, base="local", name="ward")
    report = await asyncio.to_thread(run_card, order, rows, find_artefact(NAME), tmp_path / "ward")
    config = parse_config(CONFIG, {})
    catalog = build_catalog(config, {}, UpstreamTransport())
    loaders = Loaders(
        configured=lambda: open_router(NAME),
        configured_cards=lambda: build_cards(config),
        artefact=OnnxRouter.load,
        cards=lambda directory: activated_cards(config, directory),
        use_cards=catalog.use_cards,
    )
    slot = RouterSlot(open_router(NAME))
    activation = Activation(slot, database, store, tmp_path, loaders)
    await activation.start()
    values = ("ward", "done", time.time(), "admin", "labels", NAME, 60, "{}", "")
    row = dict(zip(refits.c.keys(), values, strict=True))
    await database.write(lambda connection: connection.execute(refits.insert().values(**row)))

    before = await slot.score(queries[0], deadline=60.0)
    assert TARGET not in apply_cards(before, catalog.cards).p_ok
    active = await activation.activate("ward", "admin")
    assert (active.loaded, active.model) == (True, report.name)
    after = apply_cards(await slot.score(queries[0], deadline=60.0), catalog.cards)
    assert (after.p_local_ok, after.p_frontier_ok) == (before.p_local_ok, before.p_frontier_ok)
    assert after.p_ok.keys() == {TARGET}
    assert after.p_local_ok is not None
    assert after.p_ok[TARGET] < 0.3 < after.p_local_ok
    await activation.activate(CONFIGURED, "admin")
    assert TARGET not in catalog.cards
    await activation.aclose()
    await slot.aclose()
    await catalog.aclose()
