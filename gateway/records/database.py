"""The database: a synchronous engine behind one thread, so that it never blocks a request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import (
    JSON,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
)

from gateway.records.errors import (
    RecordsError,
    RecordsRejected,
    RecordsUnavailable,
    SchemaMismatch,
)
from gateway.records.schema import ADDED, SCHEMA_VERSION, metadata, schema_version

log = logging.getLogger("tollhouse")

P = ParamSpec("P")
T = TypeVar("T")
_START_TRIES = 5
# Seconds that a transaction may take, and may wait for its turn; the second while the process ends.
_LIMIT_S = 20.0
_LAST_LIMIT_S = 5.0
# Of libpq. A server whose machine or network is gone says nothing: without these a query that is on
# its way waits for a quarter of an hour, one that has arrived for two hours, and connecting for two
# minutes. Seconds, but for `tcp_user_timeout`.
_VANISHED = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
_ESCAPES = "in a password '/', ':' and '@' are written %2F, %3A and %40"


class Database:
    """`url`: an SQLAlchemy URL (`sqlite:///records.db`, `postgresql+psycopg://...`).

    `read` and `write` run a function with a connection, in a transaction, on the one thread; they
    raise RecordsUnavailable for any failure of the database. A write takes the write lock from
    its beginning, so that what it reads cannot change under it.

    A server that stands still says nothing and closes nothing. After `limit_s` its connection is
    cut: that of a write which may have been done all the same.
    """

    def __init__(self, url: str, limit_s: float = _LIMIT_S) -> None:
        self._url = url
        self._limit_s = limit_s
        self._began = 0.0
        self._driver: Any = None
        self._engine: Engine | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="records")

    async def start(self) -> None:
        """Connect and make the tables, or bring those of an earlier version up to this one. Raises
        RecordsError, SchemaMismatch for those of a later one."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._start)

    async def read(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._run(False, lambda connection: work(connection, *args, **kwargs))

    async def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._run(True, lambda connection: work(connection, *args, **kwargs))

    def hasten(self) -> None:
        """The process ends: nothing waits long for the database from now on."""
        self._limit_s = min(self._limit_s, _LAST_LIMIT_S)

    async def aclose(self) -> None:
        self.hasten()
        if self._engine is not None:
            disposed = asyncio.wrap_future(self._thread.submit(self._engine.dispose))
            while not (await asyncio.wait({disposed}, timeout=self._limit_s))[0]:
                self._cut()
            self._engine = None
        self._thread.shutdown(wait=True)

    async def _run(self, writes: bool, work: Callable[[Connection], T]) -> T:
        return await self._in_time(self._transact, writes, work)

    async def _in_time(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The work's result, from the one thread. Raises RecordsUnavailable when its turn does not
        come."""

        def timed() -> T:
            self._began = time.monotonic()
            return work(*args, **kwargs)

        turn = self._thread.submit(timed)
        future = asyncio.wrap_future(turn)
        try:
            while not (await asyncio.wait({future}, timeout=self._limit_s))[0]:
                self._cut()
                if turn.cancel():
                    raise RecordsUnavailable("database: busy for too long")
        except asyncio.CancelledError:
            future.cancel()
            raise
        return future.result()

    def _cut(self) -> None:
        """End the connection under what has been running for too long: the thread that waits for
        the server is told that it is gone."""
        driver = self._driver
        if driver is None or time.monotonic() - self._began < self._limit_s:
            return
        try:
            with socket.socket(fileno=os.dup(driver.fileno())) as connection:
                connection.shutdown(socket.SHUT_RDWR)
        except Exception as exc:
            # Closed by now, which every driver says in its own way.
            log.info("no connection to the database to cut: %s", exc)

    def _transact(self, writes: bool, work: Callable[[Connection], T]) -> T:
        engine = self._engine
        if engine is None:
            raise RecordsUnavailable("the database has not been started")
        try:
            with engine.connect() as connection:
                connection = connection.execution_options(tollhouse_writes=writes)
                with connection.begin():
                    return work(connection)
        except (DataError, IntegrityError, OverflowError) as exc:
            raise RecordsRejected(f"database: {exc}") from exc
        except SQLAlchemyError as exc:
            raise RecordsUnavailable(f"database: {exc}") from exc

    def _start(self) -> None:
        if self._engine is not None:
            return
        try:
            self._engine = _make_engine(self._url)
            if self._engine.dialect.name == "postgresql":
                event.listen(self._engine, "connect", self._connected)
        except (ArgumentError, ImportError, OSError, ValueError) as exc:
            raise RecordsError(f"database url: {exc}") from exc
        # Several workers may make the tables at once; those that lose the race look again.
        for left in reversed(range(_START_TRIES)):
            try:
                self._transact(True, _make_tables)
                return
            except (RecordsUnavailable, RecordsRejected):
                # PostgreSQL tells the loser of such a race that a name is taken.
                if not left:
                    raise
                time.sleep(0.1)

    def _connected(self, driver: Any, _record: Any) -> None:
        """One thread uses one connection at a time: the one that was made last."""
        self._driver = driver


def check_url(url: str) -> None:
    """Whether an engine could be made for it. Connects to nothing. Raises RecordsError, which does
    not repeat the URL: it may hold a password."""
    try:
        make_url(url).get_dialect()
    except NoSuchModuleError as exc:
        raise RecordsError(f"no such kind of database: {url.partition(':')[0]}") from exc
    except (ArgumentError, ImportError, ValueError) as exc:
        raise RecordsError(f"not a URL of a database; {_ESCAPES}") from exc


def _make_engine(url: str) -> Engine:
    # Errors are logged, and what is written may be a conversation: hence `hide_parameters`.
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(
            parsed,
            pool_pre_ping=True,
            pool_size=1,
            max_overflow=1,
            hide_parameters=True,
            connect_args=_connect_args(parsed),
        )
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        if not parsed.database.startswith("file:"):
            _make_private(Path(parsed.database))
    engine = create_engine(parsed, connect_args={"timeout": 5.0}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself, see `_begin`.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        # What is committed is deleted from the outbox, so it has to survive a power cut.
        cursor.execute("PRAGMA synchronous=FULL")
        # What is deleted may be a conversation: its bytes do not stay behind in free pages.
        cursor.execute("PRAGMA secure_delete=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("tollhouse_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _make_private(path: Path) -> None:
    """An empty file for its owner alone, which SQLite takes for a new database and whose mode it
    gives to the files beside it: what is kept may be a conversation. One that is there is left as
    it is. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _connect_args(url: URL) -> dict[str, int]:
    """What the URL says itself comes first."""
    if not url.get_driver_name().startswith("psycopg"):
        return {}
    return {name: value for name, value in _VANISHED.items() if name not in url.query}


def _make_tables(connection: Connection) -> None:
    schema_version.create(connection, checkfirst=True)
    query = select(schema_version.c.version)
    version = connection.execute(query).scalar()
    if version is not None and version > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"the database has schema version {version}, this program needs {SCHEMA_VERSION}"
        )
    if version is not None and version < SCHEMA_VERSION:
        # Several workers may begin here at once: who comes second finds what the first one did.
        before = connection.execute(query.with_for_update()).scalar_one()
        for later in range(before + 1, SCHEMA_VERSION + 1):
            _add_columns(connection, later)
        connection.execute(update(schema_version).values(version=SCHEMA_VERSION))
    metadata.create_all(connection)
    if version is not None and version < SCHEMA_VERSION:
        for table in metadata.sorted_tables:
            for index in table.indexes:
                index.create(connection, checkfirst=True)
    if version is None:
        try:
            connection.execute(insert(schema_version).values(version=SCHEMA_VERSION))
        except IntegrityError as exc:
            raise RecordsUnavailable("another worker is making the tables") from exc


def _add_columns(connection: Connection, version: int) -> None:
    """To the tables that are there; one that is not is made whole."""
    found = inspect(connection)
    for table, column, sql_type in ADDED[version]:
        if found.has_table(table):
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column} {sql_type}")


def insert_or_ignore(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert rows, leaving out those whose primary key is there."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql  # slow to import, and few need it

        connection.execute(postgresql.insert(table).on_conflict_do_nothing(), rows)
    else:
        connection.execute(sqlite.insert(table).on_conflict_do_nothing(), rows)


def insert_rows(
    connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], *, ignore: bool = False
) -> None:
    """Insert whole rows, their values in the order of the table's columns, JSON columns as text.

    On SQLite they go straight to the driver: preparing each row's parameters costs several times
    what inserting it does. `ignore` leaves out rows whose primary key is there."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_sqlite_insert(table, ignore), list(rows))
        return
    names = [column.name for column in table.columns]
    packed = [i for i, column in enumerate(table.columns) if isinstance(column.type, JSON)]
    dicts = []
    for row in rows:
        values = dict(zip(names, row, strict=True))
        for i in packed:
            values[names[i]] = json.loads(row[i])
        dicts.append(values)
    if ignore:
        insert_or_ignore(connection, table, dicts)
    else:
        connection.execute(insert(table), dicts)


@lru_cache(maxsize=16)
def _sqlite_insert(table: Table, ignore: bool) -> str:
    preparer = sqlite.dialect().identifier_preparer
    names = ", ".join(preparer.quote(column.name) for column in table.columns)
    marks = ", ".join("?" * len(table.columns))
    conflict = " ON CONFLICT DO NOTHING" if ignore else ""
    target = preparer.format_table(table)
    return f"INSERT INTO {target} ({names}) VALUES ({marks}){conflict}"  # noqa: S608  # our own names
