from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from routers.artefacts import find_artefact, shipped_artefacts
from routers.onnx.arrays import load_arrays, save_arrays
from routers.onnx.heads import HeadModel, load_heads, packed, save_heads, unpacked
from routers.onnx.manifest import (
    ArtefactError,
    RuntimeMissingError,
    TwoRuntimesError,
    describe_file,
    load_manifest,
    read_manifest,
    write_manifest,
)
from routers.onnx.router import OnnxRouter
from routers.onnx.session import check_distributions

PINNED = ["model.onnx", "tokenizer.json", "heads.json", "heads.npz"]


@pytest.mark.parametrize("name", shipped_artefacts())
def test_a_shipped_artefact_is_what_its_manifest_says(name: str) -> None:
    folder = find_artefact(name)
    manifest = load_manifest(folder)
    assert manifest.name == name
    assert manifest.encoder_sha256.startswith("53aa5117")
    assert manifest.encoder_sha256.endswith("128d9db")
    # Nothing lies there that is not pinned.
    assert {path.name for path in folder.iterdir()} == {*manifest.files, "manifest.json"}
    assert set(manifest.files) >= {*PINNED, "calibration.json", "reference.json"}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 30_000_000


@pytest.mark.parametrize("name", shipped_artefacts())
def test_the_metrics_hold_what_the_limits_admit(name: str) -> None:
    manifest = read_manifest(find_artefact(name))
    assumed = sum(n for source, n in manifest.rows.items() if source.startswith("assumed/"))
    assert assumed > 0
    assert any("assumed" in limit.lower() for limit in manifest.limits)
    assert any("English" in limit for limit in manifest.limits)
    for value in manifest.metrics.values():
        assert np.isfinite(value).all()


@pytest.mark.parametrize("name", PINNED)
def test_a_changed_byte_is_named(artefact: Path, name: str) -> None:
    raw = bytearray((artefact / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (artefact / name).write_bytes(raw)
    with pytest.raises(ArtefactError, match="sha256") as caught:
        OnnxRouter.load(artefact)
    assert caught.value.file == name


@pytest.mark.parametrize("name", [*PINNED, "manifest.json"])
def test_a_missing_file_is_named(artefact: Path, name: str) -> None:
    (artefact / name).unlink()
    with pytest.raises(ArtefactError, match="cannot be read") as caught:
        OnnxRouter.load(artefact)
    assert caught.value.file == name


def test_a_truncated_file_is_named(artefact: Path) -> None:
    path = artefact / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtefactError, match="1000 bytes") as caught:
        load_manifest(artefact)
    assert caught.value.file == "model.onnx"


@pytest.mark.parametrize("name", PINNED)
@pytest.mark.parametrize("content", [b"", b"not it", b"{}", b"[1, 2", b'{"\xff": 1}'])
def test_a_pinned_file_that_is_no_model_is_named(artefact: Path, name: str, content: bytes) -> None:
    (artefact / name).write_bytes(content)
    repin(artefact, name)
    with pytest.raises(ArtefactError) as caught:
        OnnxRouter.load(artefact)
    assert caught.value.file == name


def test_heads_of_another_width_than_the_encoder_are_refused(artefact: Path) -> None:
    model = load_heads(artefact)
    arrays = dict(model.arrays)
    # A narrower encoder's: the linear layer fits by itself, what stands on it does not.
    many = len(arrays["topics"])
    arrays["topics"] = arrays["topics"][:, :-1]
    arrays["weights"] = np.delete(arrays["weights"], many, axis=1)
    with pytest.raises(ValueError, match="looks at"):
        HeadModel(model.heads, arrays)
    narrow = HeadModel(msgspec.structs.replace(model.heads, layers={}, topics={}), arrays)
    save_heads(artefact, narrow)
    for name in ("heads.json", "heads.npz"):
        repin(artefact, name)
    with pytest.raises(ArtefactError):
        OnnxRouter.load(artefact)


@pytest.mark.parametrize("name", ["calibration.json", "reference.json"])
def test_a_file_that_is_no_text_is_named(artefact: Path, name: str) -> None:
    (artefact / name).write_bytes(b'{"\xff": 1}')
    repin(artefact, name)
    with pytest.raises(ArtefactError) as caught:
        OnnxRouter.load(artefact)
    assert caught.value.file == name


@pytest.mark.parametrize("name", ["bias", "weights", "surface_mean", "topics"])
def test_heads_that_give_no_number_are_refused(artefact: Path, name: str) -> None:
    """Every request would stay unclassified, and nothing would say so before the first."""
    arrays = load_arrays(artefact / "heads.npz")
    arrays[name] = np.full_like(arrays[name], np.nan)
    save_arrays(artefact / "heads.npz", arrays)
    repin(artefact, "heads.npz")
    with pytest.raises(ArtefactError, match="no number") as caught:
        OnnxRouter.load(artefact)
    assert caught.value.file == "heads.npz"


@pytest.mark.parametrize(
    ("name", "array"),
    [("shipped/memory_scale", np.zeros(0, np.float32)), ("domain/scales", np.array(["x", "y"]))],
)
def test_an_array_of_another_kind_is_refused(
    artefact: Path, name: str, array: NDArray[Any]
) -> None:
    save_arrays(artefact / "heads.npz", {**load_arrays(artefact / "heads.npz"), name: array})
    repin(artefact, "heads.npz")
    with pytest.raises(ArtefactError) as caught:
        OnnxRouter.load(artefact)
    assert caught.value.file == "heads.npz"


def test_heads_fitted_on_other_features_are_refused(artefact: Path) -> None:
    path = artefact / "heads.json"
    heads = json.loads(path.read_bytes())
    heads["surface"].reverse()
    path.write_text(json.dumps(heads))
    with pytest.raises(ArtefactError, match="surface features"):
        load_heads(artefact)


def test_heads_survive_being_written(artefact: Path, tmp_path: Path) -> None:
    model = load_heads(artefact)
    again, once_more = tmp_path / "again", tmp_path / "once_more"
    for directory in (again, once_more):
        directory.mkdir()
        save_heads(directory, model)
        assert (directory / "heads.json").read_bytes() == (artefact / "heads.json").read_bytes()
    assert (again / "heads.npz").read_bytes() == (once_more / "heads.npz").read_bytes()
    # The arrays, and not the bytes: other versions of Python head a member of an archive otherwise.
    written, shipped = load_arrays(again / "heads.npz"), load_arrays(artefact / "heads.npz")
    assert written.keys() == shipped.keys()
    for name, array in shipped.items():
        assert written[name].dtype == array.dtype
        assert np.array_equal(written[name], array)


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1.0))
def test_a_memory_is_stored_in_a_byte_a_value(seed: int, scale: float) -> None:
    memory = np.random.default_rng(seed).uniform(-scale, scale, size=(4, 6)).astype(np.float32)
    stored = packed({"own/memory": memory, "own/line": memory})
    assert stored["own/memory"].dtype == np.int8
    found = unpacked(stored)
    assert found.keys() == {"own/memory", "own/line"}
    assert np.array_equal(found["own/line"], memory)
    assert np.abs(found["own/memory"] - memory).max() <= scale / 127
    del stored["own/memory_scale"]
    with pytest.raises(KeyError):
        unpacked(stored)


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"max_tokens": "many"},
        {"files": {}},
        {"files": {"../model.onnx": {"size": 1, "sha256": ""}}},
    ],
)
def test_a_bad_manifest_is_refused(artefact: Path, change: dict[str, object]) -> None:
    path = artefact / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(ArtefactError) as caught:
        load_manifest(artefact)
    assert caught.value.file == "manifest.json"


def test_a_manifest_with_a_damaged_byte_is_refused(artefact: Path) -> None:
    path = artefact / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"name"', b'"n\xffme"'))
    with pytest.raises(ArtefactError) as caught:
        load_manifest(artefact)
    assert caught.value.file == "manifest.json"


def test_a_manifest_never_reaches_outside_its_directory(artefact: Path) -> None:
    path = artefact / "manifest.json"
    manifest = json.loads(path.read_bytes())
    outside = artefact.parent / "secret"
    outside.write_bytes(b"x")
    entry = describe_file(outside)
    manifest["files"]["../secret"] = {"size": entry.size, "sha256": entry.sha256}
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match="outside"):
        load_manifest(artefact)


def test_both_runtimes_are_an_error() -> None:
    with pytest.raises(TwoRuntimesError, match="onnxruntime-gpu"):
        check_distributions(lambda name: True)


def test_no_runtime_is_an_error() -> None:
    with pytest.raises(RuntimeMissingError, match="install"):
        check_distributions(lambda name: False)


@pytest.mark.parametrize("one", ["onnxruntime", "onnxruntime-gpu"])
def test_one_runtime_is_fine(one: str) -> None:
    assert check_distributions(lambda name: name == one) == one


def test_importing_the_router_imports_no_runtime() -> None:
    code = (
        "import sys, routers.onnx.router, routers.heuristics, routers.train;"
        "heavy = {'onnxruntime', 'tokenizers', 'numpy', 'torch'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def repin(artefact: Path, name: str) -> None:
    manifest = read_manifest(artefact)
    manifest.files[name] = describe_file(artefact / name)
    write_manifest(artefact, manifest)
