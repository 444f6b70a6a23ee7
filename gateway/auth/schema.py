"""The tables of keys and of the budgets of teams and organisations."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from gateway.records.schema import metadata
from gateway.windows import MAX_CHARS


def _terms() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("budget", sa.BigInteger),
        sa.Column("window", sa.String(MAX_CHARS), nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger),
        sa.Column("tokens_per_minute", sa.BigInteger),
        sa.Column("concurrency", sa.BigInteger),
    )


api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(12), primary_key=True),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
    sa.Column("org", sa.String(64), nullable=False),
    sa.Column("team", sa.String(64), nullable=False),
    sa.Column("user", sa.String(128), nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("policy", sa.String(64), nullable=False),
    sa.Column("allow", sa.JSON, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    *_terms(),
    sa.Column("expires", sa.Double),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("created_by", sa.String(64), nullable=False),
    sa.Column("revoked", sa.Double),
)

scope_terms = sa.Table(
    "scope_terms",
    metadata,
    sa.Column("id", sa.String(80), primary_key=True),
    sa.Column("labels", sa.JSON, nullable=False),
    *_terms(),
)

# A repeated creation finds its first result here. Only hashes are kept of what was sent.
idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("id", sa.LargeBinary(32), primary_key=True),
    sa.Column("request", sa.LargeBinary(32), nullable=False),
    sa.Column("result", sa.String(64), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
)
