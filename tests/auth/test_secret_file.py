from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest

from gateway.auth import SecretFileError, load_or_create_secret


def test_made_once_private_and_stable(tmp_path: Path) -> None:
    path = tmp_path / "data" / "hash-key"
    first = load_or_create_secret(path)
    assert len(first) == 43
    assert load_or_create_secret(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["hash-key"]


def test_an_existing_secret_is_read_without_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("my-own-admin-token-1\n")
    assert load_or_create_secret(path) == b"my-own-admin-token-1"


@pytest.mark.parametrize("content", ["", "short\n"])
def test_too_short_a_secret_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(SecretFileError, match="token: holds less than"):
        load_or_create_secret(path)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SecretFileError, match="directory"):
        load_or_create_secret(tmp_path)


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    path = tmp_path / "hash-key"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = set(pool.map(load_or_create_secret, [path] * 16))
    assert len(found) == 1
