"""Where the training data comes from, and how to fetch it where there is internet.

`sources.toml` is the table: one entry per file of the data directory. `fetch` brings the originals,
converts them and writes `NAME.jsonl.gz`, the same bytes every time; it says whether that is the
file that the shipped artefacts were trained on. Sets that routers are measured on are not fetched:
only training and validation splits are, and rows that repeat a test set are left out by number.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import json
import shutil
import tempfile
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from routers.output import write_whole
from routers.train.originals import CONVERTERS, Original, Record, SourceError

__all__ = ["Downloader", "Fetched", "Source", "SourceError", "copies_in", "fetch", "sources"]

TABLE = "sources.toml"
GITHUB = "https://raw.githubusercontent.com"
TIMEOUT_S = 60.0


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of the table, whose head explains the fields. `name` is filled in by `sources`."""

    what: str
    licence: str
    repo: str
    rows: int
    sha256: str
    name: str = ""
    site: Literal["github", "hub"] = "github"
    revision: str = ""
    files: list[str] = []
    parts: str = ""
    prefix: str = ""
    pins: dict[str, str] = {}
    convert: str = ""
    fields: dict[str, str] = {}
    constant: dict[str, str] = {}
    keep: list[str] = []
    missing: str = ""

    @property
    def origin(self) -> str:
        host = {"github": "github.com", "hub": "huggingface.co/datasets"}[self.site]
        return f"{host}/{self.repo}"

    def originals(self) -> Iterator[tuple[str, str]]:
        """The original's files and their parts, in the order in which they are read."""
        for file in self.files:
            for part in self.parts.split() or [""]:
                yield file.replace("{}", part), part

    def kept(self) -> list[set[int]]:
        """The numbers of `keep`, written as `3 5-7`."""
        return [
            {
                number
                for span in text.split()
                for first, _, last in [span.partition("-")]
                for number in range(int(first), int(last or first) + 1)
            }
            for text in self.keep
        ]


class Fetched(msgspec.Struct, frozen=True):
    """`same`: the content is that of the file the shipped artefacts were trained on."""

    name: str
    path: str
    rows: int
    expected: int
    same: bool


# Source, file of it, folder for it: the path of a local copy. Raises SourceError or OSError.
Downloader = Callable[[Source, str, Path], Path]


def sources() -> dict[str, Source]:
    """The table, by name."""
    text = resources.files("routers.train").joinpath(TABLE).read_text(encoding="utf-8")
    table = msgspec.convert(tomllib.loads(text), dict[str, Source])
    return {name: msgspec.structs.replace(entry, name=name) for name, entry in table.items()}


def fetch(
    name: str,
    out_dir: Path,
    download: Downloader | None = None,
    table: Mapping[str, Source] | None = None,
) -> Fetched:
    """Write `out_dir/NAME.jsonl.gz` from its originals, whole or not at all; downloaded originals
    are deleted. Raises SourceError naming the source, file and row, and OSError for `out_dir`."""
    table = sources() if table is None else table
    if name not in table:
        raise SourceError(f"{name}: no such source; there are {', '.join(table)}")
    source = table[name]
    if not source.files:
        raise SourceError(f"{name}: {' '.join(source.missing.split())}")
    with tempfile.TemporaryDirectory(prefix="tollhouse-") as scratch:
        originals = list(_bring(source, Path(scratch), download or from_internet))
        records = list(CONVERTERS[source.convert](source, originals))
    if not records:
        raise SourceError(f"{name}: the originals have none of the rows that are used")
    content = b"".join(_line(name, number, record) for number, record in enumerate(records, 1))
    path = out_dir / f"{name}.jsonl.gz"
    out_dir.mkdir(parents=True, exist_ok=True)
    write_whole(path, [_packed(content)])
    same = hashlib.sha256(content).hexdigest() == source.sha256
    return Fetched(name, str(path), len(records), source.rows, same)


def _bring(source: Source, scratch: Path, download: Downloader) -> Iterator[Original]:
    for number, (file, part) in enumerate(source.originals()):
        folder = scratch / str(number)
        folder.mkdir()
        try:
            path = download(source, file, folder)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as exc:
            raise SourceError(f"{source.name}: {source.origin}: {file}: {exc}") from exc
        if digest != source.pins.get(file, digest):
            raise SourceError(f"{source.name}: {file}: its sha256 is not the one in {TABLE}")
        yield Original(source.name, file, path, part)


def from_internet(source: Source, file: str, folder: Path) -> Path:
    """The file at its pinned revision, from GitHub or the Hugging Face hub."""
    if source.site == "hub":
        return from_hub(source, file, folder)
    return from_github(source, file, folder)


def from_github(source: Source, file: str, folder: Path, base: str = GITHUB) -> Path:
    place = urllib.parse.quote(f"{source.repo}/{source.revision}/{file}")
    path = folder / Path(file).name
    # `base` is ours, never a user's: no other scheme can come in.
    with (
        urllib.request.urlopen(f"{base}/{place}", timeout=TIMEOUT_S) as answer,  # noqa: S310
        path.open("wb") as copy,
    ):
        shutil.copyfileobj(answer, copy)
    return path


def from_hub(source: Source, file: str, folder: Path, endpoint: str | None = None) -> Path:
    """Through `huggingface_hub`, which knows proxies, mirrors (HF_ENDPOINT) and tokens."""
    try:
        hub = importlib.import_module("huggingface_hub")
    except ModuleNotFoundError as exc:
        raise SourceError(
            f"{source.name}: the hub needs the extra `train`: pip install 'tollhouse[train]'"
        ) from exc
    return Path(
        hub.hf_hub_download(
            source.repo,
            file,
            repo_type="dataset",
            revision=source.revision,
            local_dir=folder,
            endpoint=endpoint,
        )
    )


def copies_in(directory: Path) -> Downloader:
    """A downloader for machines without internet: `directory/REPO/FILE`, as cloned there."""

    def copy(source: Source, file: str, folder: Path) -> Path:
        return directory / source.repo / file

    return copy


def _line(name: str, number: int, record: Record) -> bytes:
    try:
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError as exc:
        raise SourceError(f"{name}: row {number} of the result: {exc}") from exc


def _packed(content: bytes) -> bytes:
    """gzip without a file name and a time, which would differ each time."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as file:
        file.write(content)
    return buffer.getvalue()
