"""Refits from proposal to report, with a small program in the place of the fitting."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.changes import list_changes
from gateway.learning import repository
from gateway.learning.activation import CONFIGURED, _require_done
from gateway.learning.errors import (
    BadRows,
    NoBase,
    RefitBusy,
    RefitNotReady,
    RefitTaken,
    UnknownRefit,
)
from gateway.learning.refits import TIME_LIMIT_S, Proposal, Refit, Refits
from gateway.learning.schema import activations
from gateway.learning.types import Label, conversation_of
from gateway.learning.vectors import holders
from gateway.records import Database, RecordsError
from gateway.store import Store
from gateway.store.lock import Lock
from routers.onnx.manifest import Manifest, describe_file, write_manifest

ROW = b'{"id": "a", "prompt": "hello", "local_ok": 1, "frontier_ok": null}\n'
THREE = b"".join(ROW.replace(b'"a"', b'"%c"' % each) for each in b"abc")
NAME = "from pathlib import Path; import json, sys, os; base, out, name, seed = sys.argv[1:]; "
# Writes what it was given into the artefact, and reports on it.
GOOD = NAME + (
    "rows = sys.stdin.read().splitlines(); Path(out).mkdir(); "
    "Path(out, 'manifest.json').write_text(str(os.environ['OMP_NUM_THREADS'])); "
    "print(json.dumps({'report': {'name': name, 'base': base, 'rows': len(rows), 'seconds': 1.5, "
    "'better': True, 'verdict': 'better', 'passed_over': 4, "
    "'metrics': {'apgr': 0.6, 'seed': int(seed)}}}))"
)
REFUSES = NAME + "print(json.dumps({'error': 'rows: too few rows'}))"
DIES = NAME + "Path(out).mkdir(); print('half'); sys.exit('no memory left')"
BABBLES = NAME + "print('not json')"
HANGS = NAME + "Path(out).mkdir(); import time; time.sleep(60)"

Make = Callable[..., Refits]


@pytest.fixture
async def make(tmp_path: Path, database: Database, store: Store) -> AsyncIterator[Make]:
    made: list[Refits] = []

    def refits(
        script: str = GOOD,
        worker: str = "one",
        clock: Callable[[], float] = lambda: 1_800_000_000.0,
    ) -> Refits:
        found = Refits(
            database,
            Lock(store, "refit", worker),
            tmp_path / "artefacts",
            lambda: tmp_path / "base-artefact",
            clock,
            (sys.executable, "-c", script),
        )
        made.append(found)
        return found

    yield refits
    for found in made:
        await found.aclose()


async def ended(refits: Refits, name: str) -> Refit:
    for _ in range(1500):
        found = await refits.get(name)
        if found.state != "running":
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"{name} runs for ever")


async def test_an_uploaded_refit_ends_with_an_artefact_and_a_report(
    make: Make, tmp_path: Path
) -> None:
    refits = make()
    begun = await refits.propose(Proposal("admin", "mine", seed=7, upload=THREE))
    assert (begun.state, begun.source, begun.rows, begun.base) == (
        "running",
        "upload",
        3,
        "base-artefact",
    )
    done = await ended(refits, "mine")
    assert (done.state, done.better, done.verdict, done.error) == ("done", True, "better", "")
    assert done.report is not None
    assert (done.report["rows"], done.report["passed_over"]) == (3, 4)
    assert done.report["metrics"]["seed"] == 7
    # One thread, and nothing left but the artefact: the rows were never in a file.
    folder = tmp_path / "artefacts"
    assert (folder / "mine" / "manifest.json").read_text() == "1"
    assert [path.name for path in folder.iterdir()] == ["mine"]
    with pytest.raises(RefitTaken):
        await refits.propose(Proposal("admin", "mine", upload=ROW))
    again = await refits.propose(Proposal("admin", upload=ROW))
    assert again.name == "refit-20270115-080000"
    await ended(refits, again.name)
    page, cursor = await refits.page(1)
    assert [refit.name for refit in page] == [again.name]
    rest, end = await refits.page(5, cursor)
    assert ([refit.name for refit in rest], end) == (["mine"], None)
    with pytest.raises(UnknownRefit):
        await refits.get("nope")


async def test_a_deleted_refit_leaves_neither_files_nor_its_name(
    make: Make, tmp_path: Path, database: Database
) -> None:
    refits = make()
    for name in ("mine", "other"):
        await refits.propose(Proposal("admin", name, upload=ROW))
        await ended(refits, name)
    await refits.delete("mine", "admin")
    with pytest.raises(UnknownRefit):
        await refits.get("mine")
    with pytest.raises(UnknownRefit):
        await refits.delete("mine", "admin")
    assert [path.name for path in (tmp_path / "artefacts").iterdir()] == ["other"]
    [change] = await database.read(list_changes, None, 1)
    assert (change.action, change.target) == ("router.delete", "mine")
    await refits.propose(Proposal("admin", "mine", upload=ROW))
    assert (await ended(refits, "mine")).state == "done"


async def test_files_that_were_not_removed_are_told_and_can_be_asked_for_again(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refits = make()
    await refits.propose(Proposal("admin", "mine", upload=ROW))
    await ended(refits, "mine")

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("gateway.learning.refits.shutil.rmtree", refuse)
        with pytest.raises(RefitNotReady, match=r"'mine' were not removed: .*Permission denied"):
            await refits.delete("mine", "admin")
    with pytest.raises(RefitTaken):
        await refits.propose(Proposal("admin", "mine", upload=ROW))
    await refits.delete("mine", "admin")
    assert list((tmp_path / "artefacts").iterdir()) == []
    with pytest.raises(UnknownRefit):
        await refits.delete("mine", "admin")


@pytest.mark.parametrize("name", ["..", ".", "", ".mine.partial", "a/../../b", CONFIGURED])
async def test_only_a_refits_own_folder_can_be_deleted(
    make: Make, tmp_path: Path, name: str
) -> None:
    refits = make()
    (tmp_path / "artefacts" / ".mine.partial").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    with pytest.raises(UnknownRefit):
        await refits.delete(name, "admin")
    assert (tmp_path / "artefacts" / ".mine.partial").is_dir()
    assert (tmp_path / "b").is_dir()


async def test_in_postgresql_a_refit_is_deleted_or_activated_but_never_both(
    cluster: str, store: Store, tmp_path: Path
) -> None:
    # One worker's writes wait for each other anyhow; these are two.
    database, other = Database(cluster), Database(cluster)
    await database.start()
    await other.start()
    refits = Refits(
        database,
        Lock(store, "refit", "one"),
        tmp_path / "artefacts",
        lambda: tmp_path / "base-artefact",
        program=(sys.executable, "-c", GOOD),
    )
    await refits.propose(Proposal("admin", "turns", upload=ROW))
    assert (await ended(refits, "turns")).state == "done"
    checked, told = threading.Event(), threading.Event()

    def activate(connection: sa.Connection) -> None:
        _require_done(connection, "turns", lock=True)
        checked.set()
        told.wait(10)
        row = {"id": 1, "name": "turns", "before": 0, "at": 0.0}
        connection.execute(activations.insert().values(row))

    async def delete() -> str:
        await asyncio.to_thread(checked.wait, 10)
        # It is not active yet, and waits for whoever is activating it.
        deleting = asyncio.create_task(refits.delete("turns", "admin"))
        await asyncio.wait([deleting], timeout=0.5)
        told.set()
        with pytest.raises(RefitNotReady, match="is active") as refused:
            await deleting
        return str(refused.value)

    await asyncio.gather(other.write(activate), delete())
    assert (tmp_path / "artefacts" / "turns" / "manifest.json").is_file()
    await database.write(lambda connection: connection.execute(activations.delete()))
    await refits.delete("turns", "admin")
    assert not (tmp_path / "artefacts" / "turns").exists()
    await refits.aclose()
    await other.aclose()
    await database.aclose()


async def test_what_runs_is_not_deleted_and_what_failed_is(make: Make) -> None:
    refits = make(HANGS)
    await refits.propose(Proposal("admin", "slow", upload=ROW))
    with pytest.raises(RefitNotReady, match="is running"):
        await refits.delete("slow", "admin")
    await refits.aclose()
    assert (await ended(refits, "slow")).state == "failed"
    await refits.delete("slow", "admin")
    with pytest.raises(UnknownRefit):
        await refits.get("slow")


async def test_a_refit_whose_deletion_is_not_recorded_stays_whole(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    refits = make()
    await refits.propose(Proposal("admin", "mine", upload=ROW))
    await ended(refits, "mine")

    async def refuse(*_: object) -> None:
        raise RecordsError("no disk is left")

    with monkeypatch.context() as patched:
        patched.setattr(database, "write", refuse)
        with pytest.raises(RecordsError):
            await refits.delete("mine", "admin")
    assert (await refits.get("mine")).state == "done"
    assert [path.name for path in (tmp_path / "artefacts").iterdir()] == ["mine"]
    assert (tmp_path / "artefacts" / "mine" / "manifest.json").is_file()


def artefact(folder: Path, heads: bytes, own: bool = True) -> None:
    folder.mkdir(parents=True)
    (folder / "heads.npz").write_bytes(heads)
    rows = {"shipped": 9, **({"own/mine": 60} if own else {})}
    files = {"heads.npz": describe_file(folder / "heads.npz")}
    write_manifest(folder, Manifest("m", 1, "e", "0", 9, 0, "2027-01-15", files, rows, {}, []))


async def test_who_holds_the_vectors_of_a_refit_is_told_by_the_files(tmp_path: Path) -> None:
    # A card of a card of `mine`, whose line in the list is gone, and a later use of its name.
    for name, heads in (
        ("mine", b"1"),
        ("card-2", b"1"),
        (".card-3.partial", b"1"),
        ("card", b"2"),
    ):
        artefact(tmp_path / name, heads)
    (tmp_path / "failed").mkdir()
    assert holders(tmp_path, "mine") == ["card-2"]
    assert holders(tmp_path, "card-2") == ["mine"]
    assert holders(tmp_path, "card") == []
    for name in ("failed", "nowhere"):
        assert holders(tmp_path, name) == []
    # Cards of the shipped heads have them in common, and nothing of anybody's texts.
    for name in ("ward", "lab"):
        artefact(tmp_path / name, b"3", own=False)
    assert holders(tmp_path, "ward") == []
    # One that cannot be asked whether it is fitted to rows of one's own counts as such.
    (tmp_path / "ward" / "manifest.json").write_text("{")
    assert holders(tmp_path, "ward") == ["lab"]


async def test_what_a_refit_is_being_made_of_is_not_deleted(
    make: Make, tmp_path: Path, database: Database
) -> None:
    refits = make()
    await refits.propose(Proposal("admin", "base-artefact", upload=ROW))
    assert (await ended(refits, "base-artefact")).state == "done"
    slow = make(HANGS)
    await slow.propose(Proposal("admin", "next", upload=ROW))
    with pytest.raises(RefitNotReady, match="'next', which starts from it, is running"):
        await refits.delete("base-artefact", "admin")
    assert (tmp_path / "artefacts" / "base-artefact").is_dir()
    await slow.aclose()
    assert await refits.delete("base-artefact", "admin") == []


CARD_ROW = b'{"prompt": "hello", "ok": 1}\n'
ORDERED = (
    "from pathlib import Path; import json, sys; base, out, name, seed, order = sys.argv[1:]; "
    "Path(out).mkdir(); print(json.dumps({'report': {'better': True, 'verdict': 'better', "
    "'order': json.loads(order)}}))"
)


async def test_the_card_of_a_model_is_fitted_to_rows_about_it(make: Make) -> None:
    refits = make(ORDERED)
    proposal = Proposal(
        "admin",
        "ward",
        seed=3,
        upload=CARD_ROW,
        model="ward/m",
        tier="local",
        sole=("local",),
    )
    assert (await refits.propose(proposal)).rows == 1
    done = await ended(refits, "ward")
    assert done.report is not None
    order = {
        "target": "ward/m",
        "base": "local",
        "like": "",
        "sole": ["local"],
        "name": "ward",
        "seed": 3,
    }
    assert done.report["order"] == order
    # Rows of a refit of the heads say nothing of `ok`.
    with pytest.raises(BadRows, match="local_ok"):
        await refits.propose(Proposal("admin", upload=CARD_ROW))


@pytest.mark.parametrize(
    ("proposal", "message"),
    [
        (Proposal("admin", upload=ROW, model="ward"), "model: 'ward' is not BACKEND/MODEL"),
        (Proposal("admin", upload=ROW, tier="local"), "model: is missing"),
        (Proposal("admin", upload=ROW, like="qwen"), "model: is missing"),
        (
            Proposal("admin", upload=ROW, model="a/b", tier="local", like="qwen"),
            "model: a tier and a model that it is like",
        ),
    ],
)
async def test_what_card_is_meant_must_be_plain(
    make: Make, proposal: Proposal, message: str
) -> None:
    with pytest.raises(BadRows, match=message):
        await make().propose(proposal)


async def test_collected_labels_are_what_is_refitted(make: Make, database: Database) -> None:
    refits = make()
    with pytest.raises(BadRows, match="no labels have been collected"):
        await refits.propose(Proposal("admin", "mine"))
    for i, org in enumerate(("acme", "acme", "rival")):
        for source in ("feedback", "shadow"):
            made = Label(
                decision_id=f"dec_{i}",
                source=source,
                org=org,
                ts=float(i),
                created=1.0,
                conversation=conversation_of({"prompt": "hello"}),
                local_ok=1.0,
            )
            await database.write(repository.put_label, made, 100)
    assert (await refits.propose(Proposal("admin", "all"))).rows == 3
    await ended(refits, "all")
    assert (await refits.propose(Proposal("admin", "ours", org="acme"))).rows == 2
    await ended(refits, "ours")
    assert (await refits.propose(Proposal("admin", "few", limit=1))).rows == 1
    await ended(refits, "few")


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (REFUSES, "rows: too few rows"),
        (DIES, "its process ended with 1: no memory left"),
        (BABBLES, "it failed: DecodeError"),
    ],
)
async def test_what_fails_says_why_and_leaves_nothing(
    make: Make, tmp_path: Path, script: str, error: str
) -> None:
    refits = make(script)
    await refits.propose(Proposal("admin", "mine", upload=ROW))
    failed = await ended(refits, "mine")
    assert (failed.state, failed.report, failed.better) == ("failed", None, None)
    assert failed.error.startswith(error)
    assert list((tmp_path / "artefacts").iterdir()) == []
    # And the next one may run, also under the same name.
    again = make(GOOD)
    for name in ("mine", "next"):
        await again.propose(Proposal("admin", name, upload=ROW))
        assert (await ended(again, name)).state == "done"
    page, _ = await again.page(5)
    assert [refit.name for refit in page] == ["next", "mine"]
    with pytest.raises(RefitTaken):
        await again.propose(Proposal("admin", "mine", upload=ROW))


async def test_one_at_a_time_over_all_workers(make: Make, tmp_path: Path) -> None:
    one, two = make(HANGS, "one"), make(GOOD, "two")
    await one.propose(Proposal("admin", "first", upload=ROW))
    for refits in (one, two):
        with pytest.raises(RefitBusy):
            await refits.propose(Proposal("admin", "second", upload=ROW))
    await one.aclose()
    lost = await two.get("first")
    assert (lost.state, "ended before it did" in lost.error) == ("failed", True)
    # It may have been given up before it had made its folder.
    assert list((tmp_path / "artefacts").glob("*")) == []
    await two.propose(Proposal("admin", "second", upload=ROW))
    assert (await ended(two, "second")).state == "done"


async def test_a_worker_that_was_killed_leaves_no_refit_running(
    make: Make, store: Store, database: Database
) -> None:
    killed = make(HANGS, "killed")
    await killed.propose(Proposal("admin", "first", upload=ROW))
    task = killed._task
    assert task is not None
    # As after a kill: nothing more is said by that worker, and its turn runs out.
    killed._task = None
    await store.command("DEL", "th:lock:refit")
    late = make(GOOD, "late", lambda: 1_800_000_000.0 + TIME_LIMIT_S + 61)
    assert (await late.get("first")).state == "failed"
    other = make(GOOD, "other")
    assert (await other.get("first")).state == "running"
    await other.propose(Proposal("admin", "second", upload=ROW))
    assert (await other.get("first")).state == "failed"
    await ended(other, "second")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("proposal", "message"),
    [
        (Proposal("admin", "UPPER", upload=ROW), "name:"),
        (Proposal("admin", "../up", upload=ROW), "name:"),
        (Proposal("admin", "configured", upload=ROW), "name:"),
        (Proposal("admin", "x", upload=b"{}\n"), "rows, line 1"),
        (Proposal("admin", "x", upload=ROW + b'{"prompt": "x"}\n'), "rows, line 2: local_ok"),
        (Proposal("admin", "x", upload=b"\xff\xfe"), "rows: seems to be UTF-16"),
        (Proposal("admin", "x", upload=(ROW.strip() + b"\r") * 2), "rows, line 1: is not JSON"),
    ],
)
async def test_bad_rows_are_refused_at_once(make: Make, proposal: Proposal, message: str) -> None:
    refits = make()
    with pytest.raises(BadRows) as caught:
        await refits.propose(proposal)
    assert str(caught.value).startswith(message)
    assert await refits.page(10) == ([], None)
    await refits.propose(Proposal("admin", "fine", upload=ROW))
    await ended(refits, "fine")


async def test_a_router_without_files_cannot_be_refitted(
    database: Database, store: Store, tmp_path: Path
) -> None:
    def base() -> Path:
        raise NoBase("heuristic")

    refits = Refits(database, Lock(store, "refit", "x"), tmp_path, base)
    with pytest.raises(NoBase, match="heuristic"):
        await refits.propose(Proposal("admin", "x", upload=ROW))


async def test_what_takes_long_is_not_done_where_requests_are_served(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: set[int] = set()

    class Upload(bytes):
        def splitlines(self, keepends: bool = False) -> list[bytes]:
            where.add(threading.get_ident())
            return super().splitlines(keepends)

    def rmtree(*_: object, **__: object) -> None:
        where.add(threading.get_ident())

    monkeypatch.setattr("gateway.learning.refits.shutil.rmtree", rmtree)
    refits = make()
    await refits.propose(Proposal("admin", "mine", upload=Upload(ROW)))
    assert (await ended(refits, "mine")).state == "done"
    assert where
    assert threading.get_ident() not in where


async def test_two_proposals_at_once_are_one_refit(make: Make) -> None:
    refits = make()
    asked = [refits.propose(Proposal("admin", f"r{i}", upload=ROW)) for i in range(2)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(type(x).__name__ for x in found) == ["Refit", "RefitBusy"]
    [begun] = [x for x in found if isinstance(x, Refit)]
    await ended(refits, begun.name)
