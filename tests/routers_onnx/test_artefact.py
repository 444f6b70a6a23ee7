from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from routers.onnx.heads import load_heads
from routers.onnx.manifest import (
    ArtefactError,
    RuntimeMissingError,
    TwoRuntimesError,
    describe_file,
    load_manifest,
    read_manifest,
    write_manifest,
)
from routers.onnx.router import DEFAULT_ARTEFACT, OnnxRouter
from routers.onnx.session import check_distributions


def test_the_shipped_artefact_is_what_its_manifest_says() -> None:
    manifest = load_manifest(DEFAULT_ARTEFACT)
    assert manifest.encoder_sha256.startswith("53aa5117")
    assert manifest.encoder_sha256.endswith("128d9db")
    assert set(manifest.files) == {"model.onnx", "tokenizer.json", "heads.json"}
    on_disk = sum(path.stat().st_size for path in DEFAULT_ARTEFACT.iterdir())
    assert on_disk <= 30_000_000


def test_the_metrics_hold_what_the_limits_admit() -> None:
    manifest = read_manifest(DEFAULT_ARTEFACT)
    metrics = manifest.metrics
    apgr, length = metrics["mmlu_gold_cv5_apgr"], metrics["mmlu_gold_apgr_length"]
    assert isinstance(apgr, float)
    assert isinstance(length, float)
    assert apgr > length > 0.5
    brier = metrics["mmlu_gold_cv5_p_local_brier"]
    assert isinstance(brier, float)
    assert brier < metrics["mmlu_gold_p_local_brier_of_mean"]  # type: ignore[operator]
    assumed = sum(n for name, n in manifest.rows.items() if name.startswith("assumed/"))
    assert 0 < assumed < sum(manifest.rows.values()) / 5
    assert any("assumed/" in limit for limit in manifest.limits)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "heads.json"])
def test_a_changed_byte_is_named(artefact: Path, name: str) -> None:
    raw = bytearray((artefact / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (artefact / name).write_bytes(raw)
    with pytest.raises(ArtefactError, match="sha256") as caught:
        OnnxRouter.load(artefact)
    assert caught.value.file == name


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "heads.json", "manifest.json"])
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


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "heads.json"])
@pytest.mark.parametrize("content", [b"", b"not it", b"{}", b"[1, 2"])
def test_a_pinned_file_that_is_no_model_is_named(artefact: Path, name: str, content: bytes) -> None:
    (artefact / name).write_bytes(content)
    repin(artefact, name)
    with pytest.raises(ArtefactError) as caught:
        OnnxRouter.load(artefact)
    assert caught.value.file == name


def test_heads_of_another_shape_are_refused(artefact: Path) -> None:
    path = artefact / "heads.json"
    heads = json.loads(path.read_bytes())
    heads["local"]["weights"].pop()
    path.write_text(json.dumps(heads))
    with pytest.raises(ArtefactError):
        load_heads(path)


def test_heads_fitted_on_other_features_are_refused(artefact: Path) -> None:
    path = artefact / "heads.json"
    heads = json.loads(path.read_bytes())
    heads["surface"].reverse()
    path.write_text(json.dumps(heads))
    with pytest.raises(ArtefactError, match="surface features"):
        load_heads(path)


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
