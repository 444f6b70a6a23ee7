"""Policies in the database: plain functions of an open connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from gateway.policies.document import PolicyVersion, decode, encode, numbered
from gateway.policies.errors import PolicyStale, UnknownPolicy
from gateway.policies.schema import active_policies, policy_documents
from routers.types import Policy

_docs = policy_documents.c
_active = active_policies.c


class Revision(msgspec.Struct, frozen=True):
    """One line of a policy's history. Times are seconds since the epoch; `activated` is when it
    last became the active version, None for a draft."""

    version: int
    etag: str
    active: bool
    author: str
    comment: str
    created: float
    activated: float | None


class Draft(msgspec.Struct, frozen=True):
    name: str
    policy: Policy
    author: str
    comment: str
    created: float


def is_empty(connection: sa.Connection) -> bool:
    return connection.execute(sa.select(_docs.name).limit(1)).first() is None


def read_active(connection: sa.Connection) -> dict[str, tuple[int, str]]:
    """By name: version and document."""
    query = sa.select(_docs.name, _docs.version, _docs.document).join(
        active_policies, sa.and_(_active.name == _docs.name, _active.version == _docs.version)
    )
    return {row.name: (row.version, row.document) for row in connection.execute(query)}


def stored_names(connection: sa.Connection) -> set[str] | None:
    """Of the active policies; None while there is no document at all."""
    if is_empty(connection):
        return None
    return set(connection.execute(sa.select(_active.name)).scalars())


def active_version(connection: sa.Connection, name: str) -> PolicyVersion | None:
    """Raises ConfigError for a document of a newer release."""
    query = sa.select(_active.version).where(_active.name == name)
    version = connection.execute(query).scalar()
    return None if version is None else read_version(connection, name, version)


def read_version(connection: sa.Connection, name: str, version: int) -> PolicyVersion:
    """Raises UnknownPolicy, and ConfigError for a document of a newer release."""
    query = sa.select(_docs.document).where(_docs.name == name, _docs.version == version)
    document = connection.execute(query).scalar()
    if document is None:
        raise UnknownPolicy(name, version)
    return numbered(name, version, decode(document))


def insert(connection: sa.Connection, draft: Draft) -> PolicyVersion:
    """As the next version. Raises PolicyStale when another writer was first."""
    query = sa.select(sa.func.max(_docs.version)).where(_docs.name == draft.name)
    version = (connection.execute(query).scalar() or 0) + 1
    values = {
        "name": draft.name,
        "version": version,
        "document": encode(draft.policy).decode(),
        "author": draft.author,
        "comment": draft.comment,
        "created": draft.created,
    }
    try:
        connection.execute(policy_documents.insert().values(values))
    except IntegrityError as exc:
        raise PolicyStale("") from exc
    return numbered(draft.name, version, draft.policy)


def set_active(
    connection: sa.Connection, name: str, version: int, replaces: int | None, now: float
) -> None:
    """`replaces` is the version that is active now, None when there is none. Raises PolicyStale
    when it is another one."""
    if replaces is None:
        try:
            connection.execute(active_policies.insert().values(name=name, version=version))
        except IntegrityError as exc:
            raise PolicyStale("") from exc
    else:
        switch = active_policies.update().where(_active.name == name, _active.version == replaces)
        if connection.execute(switch.values(version=version)).rowcount == 0:
            raise PolicyStale("")
    connection.execute(
        policy_documents.update()
        .where(_docs.name == name, _docs.version == version)
        .values(activated=now)
    )


def version_before(connection: sa.Connection, name: str, version: int) -> int | None:
    """The highest version below this one that was ever active."""
    query = sa.select(sa.func.max(_docs.version)).where(
        _docs.name == name, _docs.version < version, _docs.activated.is_not(None)
    )
    found = connection.execute(query).scalar()
    return None if found is None else int(found)


def history(connection: sa.Connection, name: str) -> list[Revision]:
    """Newest first."""
    current = connection.execute(sa.select(_active.version).where(_active.name == name)).scalar()
    query = sa.select(policy_documents).where(_docs.name == name).order_by(_docs.version.desc())
    return [_revision(row, current) for row in connection.execute(query).mappings()]


def _revision(row: Mapping[Any, Any], current: int | None) -> Revision:
    version = row["version"]
    return Revision(
        version=version,
        etag=numbered(row["name"], version, decode(row["document"])).etag,
        active=version == current,
        author=row["author"],
        comment=row["comment"],
        created=row["created"],
        activated=row["activated"],
    )
