"""The wheel holds the three packages and nothing else: no `.pth` file, no stray top level."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    uv = shutil.which("uv") or str(ROOT / ".make" / "tool" / "bin" / "uv")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [uv, "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_top_level_names(names: list[str]) -> None:
    tops = {name.split("/", 1)[0] for name in names}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == {"gateway", "routers", "backends"}


def test_what_runs_at_import_is_ours(names: list[str]) -> None:
    assert not [name for name in names if name.endswith((".pth", ".so", ".pyc"))]


@pytest.mark.parametrize(
    "needed",
    [
        "backends/local/tiny.gguf",
        "backends/prices.toml",
        "backends/providers.toml",
        "gateway/config/default_policy.toml",
        "gateway/ledger/enter.lua",
        "gateway/py.typed",
        "routers/models/minilm-l6-int8/manifest.json",
        "routers/models/minilm-l6-int8/model-gpu.onnx",
        "routers/models/minilm-l6-int8/model.onnx",
        "routers/models/minilm-l6-int8/weights.bin",
        "routers/models/static-192/manifest.json",
        "routers/models/static-192/model.onnx",
        "routers/models/static-192/heads.npz",
        "routers/train/sources.toml",
        "routers/train/topics.toml",
        "routers/train/tasks.toml",
        "routers/train/requests.toml",
    ],
)
def test_data_files_are_in(names: list[str], needed: str) -> None:
    assert needed in names
