from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from routers.artefacts import open_router, shipped_artefacts
from routers.base import Router
from routers.evals.patterns import data_directory


@pytest.fixture(scope="session")
def routing_data() -> Path:
    directory = data_directory()
    if directory is None:
        pytest.skip("the labelled data is not here: set TOLLHOUSE_DATA to its directory")
    return directory


@pytest_asyncio.fixture(params=shipped_artefacts(), scope="module", loop_scope="module")
async def shipped(request: pytest.FixtureRequest) -> AsyncIterator[Router]:
    """Each shipped artefact in turn, opened once for the tests of a module, which share a loop."""
    router = open_router(request.param)
    yield router
    await router.aclose()


@pytest.fixture
def rows_file(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    def write(rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
