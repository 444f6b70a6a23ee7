"""What an artefact is: a directory of files pinned by `manifest.json`.

::

    ArtefactError            the artefact cannot be used; `file` names what is at fault
    +-- TwoRuntimesError     onnxruntime and onnxruntime-gpu are both installed
    RuntimeMissingError      (an ArtefactError too) no runtime is installed at all
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

MANIFEST = "manifest.json"


class ArtefactError(Exception):
    """The router's artefact is missing, corrupt, or not what its manifest says.

    `file` is the name inside the artefact's directory, or the directory itself.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"router artefact {file}: {reason}")
        self.file = file
        self.reason = reason


class RuntimeMissingError(ArtefactError):
    """A library that the artefact needs is not installed."""


class TwoRuntimesError(ArtefactError):
    """Both distributions of ONNX Runtime are installed: they overwrite each other's files."""


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`size` in bytes, `sha256` in lower-case hex."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`rows`: training rows by source. `metrics`: what was measured, each name with its protocol.
    `limits`: what the artefact is known not to do, in plain words."""

    name: str
    version: int
    encoder: str
    encoder_sha256: str
    max_tokens: int
    seed: int
    created: str
    files: dict[str, FileEntry]
    rows: dict[str, int]
    metrics: dict[str, float | list[float]]
    limits: list[str]


_DECODER = msgspec.json.Decoder(Manifest)
_ENCODER = msgspec.json.Encoder(order="deterministic")
HEADS = "heads.npz"
REQUIRED = ("model.onnx", "tokenizer.json", "heads.json", HEADS)
# In the manifest's `rows`: those of an operator, which a refit was fitted to.
OWN_ROWS = "own/"


def load_manifest(directory: Path) -> Manifest:
    """Read the manifest and verify every file it names, and that there are no others: what an
    artefact may bring is read when it is there. Raises ArtefactError."""
    manifest = read_manifest(directory)
    for name in REQUIRED:
        if name not in manifest.files:
            raise ArtefactError(MANIFEST, f"does not pin {name}")
    for name, entry in manifest.files.items():
        if Path(name).name != name:
            raise ArtefactError(MANIFEST, f"names a file outside its directory: {name!r}")
        _verify(directory / name, entry)
    for file in sorted(directory.iterdir()):
        other = file.name not in (MANIFEST, *manifest.files) and not file.name.startswith(".")
        if other and not file.is_dir():
            raise ArtefactError(file.name, "is not in the manifest, which pins every file")
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest without verifying the files. Raises ArtefactError."""
    try:
        raw = (directory / MANIFEST).read_bytes()
    except OSError as exc:
        raise ArtefactError(MANIFEST, f"cannot be read in {directory}: {exc.strerror}") from exc
    try:
        return _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ArtefactError(MANIFEST, str(exc)) from exc


def write_manifest(directory: Path, manifest: Manifest) -> None:
    text = msgspec.json.format(_ENCODER.encode(manifest), indent=2)
    (directory / MANIFEST).write_bytes(text + b"\n")


def describe_file(path: Path) -> FileEntry:
    """The size and hash of a file. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path.stat().st_size, digest)


def _verify(path: Path, entry: FileEntry) -> None:
    try:
        found = describe_file(path)
    except OSError as exc:
        raise ArtefactError(path.name, f"cannot be read: {exc.strerror}") from exc
    if found.size != entry.size:
        raise ArtefactError(path.name, f"has {found.size} bytes, the manifest says {entry.size}")
    if found.sha256 != entry.sha256:
        raise ArtefactError(path.name, f"has sha256 {found.sha256}, not {entry.sha256}")
