from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from routers.onnx.router import DEFAULT_ARTEFACT, OnnxRouter
from routers.onnx.session import Session, load_session
from routers.onnx.tokenizer import Tokenizer, load_tokenizer
from routers.types import Query, Turn


@pytest.fixture
def ask() -> Callable[[str], Query]:
    def one_turn(text: str) -> Query:
        return Query((Turn("user", text),))

    return one_turn


@pytest.fixture
def artefact(tmp_path: Path) -> Iterator[Path]:
    """A copy of the shipped artefact that a test may damage."""
    copy = Path(shutil.copytree(DEFAULT_ARTEFACT, tmp_path / "artefact"))
    yield copy
    # pytest keeps temporary directories of several runs, and this one is 23 MB a test.
    shutil.rmtree(copy)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return load_tokenizer(DEFAULT_ARTEFACT / "tokenizer.json", 160)


@pytest.fixture(scope="session")
def session() -> Session:
    return load_session(DEFAULT_ARTEFACT)


@pytest.fixture
async def router() -> AsyncIterator[OnnxRouter]:
    loaded = OnnxRouter.load()
    yield loaded
    await loaded.aclose()
