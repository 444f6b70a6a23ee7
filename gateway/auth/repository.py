"""Keys and scopes in the database: plain functions of an open connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.auth.errors import ReplayConflict
from gateway.auth.principal import KeyInfo, KeySpec, ScopeInfo, Terms
from gateway.auth.schema import api_keys, idempotency_keys, scope_terms

IDEMPOTENCY_S = 24 * 3600.0
_TERMS = tuple(Terms.__struct_fields__)


class StoredKey(msgspec.Struct, frozen=True):
    info: KeyInfo
    hash: bytes


class Replay(msgspec.Struct, frozen=True):
    """An Idempotency-Key and the request it came with, both hashed."""

    id: bytes
    request: bytes


def find_key(connection: sa.Connection, key_id: str) -> StoredKey | None:
    query = sa.select(api_keys).where(api_keys.c.id == key_id)
    row = connection.execute(query).mappings().first()
    return None if row is None else StoredKey(_info(row), bytes(row["hash"]))


def find_keys(connection: sa.Connection, key_ids: Sequence[str]) -> dict[str, StoredKey]:
    """By id, those of these that there are."""
    query = sa.select(api_keys).where(api_keys.c.id.in_(key_ids))
    rows = connection.execute(query).mappings()
    return {row["id"]: StoredKey(_info(row), bytes(row["hash"])) for row in rows}


def insert_key(connection: sa.Connection, info: KeyInfo, hash: bytes) -> None:
    spec = info.spec
    connection.execute(
        api_keys.insert().values(
            id=info.id,
            hash=hash,
            org=spec.org,
            team=spec.team,
            user=spec.user,
            labels=list(spec.labels),
            policy=spec.policy,
            allow=list(spec.allow),
            tags=list(spec.tags),
            expires=spec.expires,
            created=info.created,
            created_by=info.created_by,
            **msgspec.structs.asdict(spec.terms),
        )
    )


def list_keys(connection: sa.Connection, after: str, limit: int) -> list[KeyInfo]:
    """By id, those after `after`."""
    query = sa.select(api_keys).where(api_keys.c.id > after).order_by(api_keys.c.id).limit(limit)
    return [_info(row) for row in connection.execute(query).mappings()]


def revoke_key(connection: sa.Connection, key_id: str, now: float) -> bool:
    """False when the key was revoked before."""
    done = connection.execute(
        api_keys.update()
        .where(api_keys.c.id == key_id, api_keys.c.revoked.is_(None))
        .values(revoked=now)
    )
    return done.rowcount == 1


def list_scopes(connection: sa.Connection) -> list[ScopeInfo]:
    query = sa.select(scope_terms).order_by(scope_terms.c.id)
    return [_scope(row) for row in connection.execute(query).mappings()]


def put_scope(connection: sa.Connection, info: ScopeInfo) -> ScopeInfo | None:
    """What was there before. Raises sqlalchemy.exc.IntegrityError when another worker was first
    to write where there was nothing."""
    mine = scope_terms.c.id == info.id
    # The row lock keeps another writer on PostgreSQL from replacing what is returned here.
    query = sa.select(scope_terms).where(mine).with_for_update()
    row = connection.execute(query).mappings().first()
    values = {"labels": list(info.labels), **msgspec.structs.asdict(info.terms)}
    if row is None:
        connection.execute(scope_terms.insert().values(id=info.id, **values))
        return None
    connection.execute(scope_terms.update().where(mine).values(values))
    return _scope(row)


def replayed(connection: sa.Connection, replay: Replay, now: float) -> str | None:
    """The id made by the first request with this Idempotency-Key, None when this is the first.
    Raises ReplayConflict when that request was another one."""
    connection.execute(
        idempotency_keys.delete().where(idempotency_keys.c.created < now - IDEMPOTENCY_S)
    )
    query = sa.select(idempotency_keys).where(idempotency_keys.c.id == replay.id)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    if bytes(row["request"]) != replay.request:
        raise ReplayConflict
    return str(row["result"])


def remember(connection: sa.Connection, replay: Replay, result: str, now: float) -> None:
    """Raises sqlalchemy.exc.IntegrityError when another worker was first."""
    connection.execute(
        idempotency_keys.insert().values(
            id=replay.id, request=replay.request, result=result, created=now
        )
    )


def _terms(row: Mapping[Any, Any]) -> Terms:
    return Terms(**{name: row[name] for name in _TERMS})


def _info(row: Mapping[Any, Any]) -> KeyInfo:
    spec = KeySpec(
        org=row["org"],
        team=row["team"],
        user=row["user"],
        labels=tuple(row["labels"]),
        policy=row["policy"],
        allow=tuple(row["allow"]),
        tags=tuple(row["tags"]),
        terms=_terms(row),
        expires=row["expires"],
    )
    return KeyInfo(
        id=row["id"],
        spec=spec,
        source="database",
        created=row["created"],
        created_by=row["created_by"],
        revoked=row["revoked"],
    )


def _scope(row: Mapping[Any, Any]) -> ScopeInfo:
    return ScopeInfo(
        id=row["id"], source="database", labels=tuple(row["labels"]), terms=_terms(row)
    )
