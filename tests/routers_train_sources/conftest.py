from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routers.train.data import default_dir
from routers.train.sources import sources

Put = Callable[..., Path]


@pytest.fixture
def routing_data() -> Path:
    directory = default_dir()
    if not directory.is_dir():
        pytest.skip("the labelled data is not here: set TOLLHOUSE_DATA to its directory")
    return directory


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """Where `put` lays originals, as `copies_in` finds them."""
    folder = tmp_path / "copies"
    folder.mkdir()
    return folder


@pytest.fixture
def put(copies: Path) -> Put:
    """Writes an original of a source in the form that its name calls for."""

    def write(source: str, content: Any, number: int = 0) -> Path:
        name, _ = list(sources()[source].originals())[number]
        path = copies / sources()[source].repo / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif path.suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(content[0]))
                writer.writeheader()
                writer.writerows(content)
        elif path.suffix == ".jsonl":
            lines = [json.dumps(row, ensure_ascii=False) for row in content]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(f"{path.stem}.json", json.dumps(content))
        else:
            path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write
