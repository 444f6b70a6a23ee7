from __future__ import annotations

from pathlib import Path

import pytest

from routers.cards import Card, Cards, Prior, encode_cards
from routers.train.data import default_dir


@pytest.fixture(scope="session")
def routing_data() -> Path:
    directory = default_dir()
    if not directory.is_dir():
        pytest.skip("the labelled data is not here: set TOLLHOUSE_DATA to its directory")
    return directory


@pytest.fixture(scope="session")
def listed() -> Cards:
    """A small list with the ambiguities of a real one."""
    names = {
        "llama-3.1-8b-base": -0.5,
        "llama-3.1-8b-instruct": -0.1,
        "mistral-7b-instruct-v0.1": -0.8,
        "mistral-7b-instruct-v0.3": -0.4,
        "mistral-7b-v0.1-base": -0.7,
        "yi-34b-base": -0.2,
    }
    cards = {name: Card(offset=offset, rows=100, error=0.1) for name, offset in names.items()}
    cards["gemini-1.5-pro-*"] = Card(base="frontier", offset=0.5)
    cards["gpt-4-1106-preview"] = Card(base="frontier")
    cards["ward/special"] = Card(offset=1.5, origin="fitted", rows=80, error=0.2)
    prior = Prior(-0.4, 0.25, 0.5, (3.8, 110.0), (2023.5, 2025.0), 0.35, 30)
    return Cards(cards=cards, prior=prior)


@pytest.fixture
def artefact(tmp_path: Path, listed: Cards) -> Path:
    """A directory with cards and nothing else of an artefact."""
    (tmp_path / "cards.json").write_bytes(encode_cards(listed))
    return tmp_path
