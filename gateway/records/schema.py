"""The durable tables, portable between SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 3

# What each version added to tables that were there before it: (table, column, type in SQL, the same
# in SQLite and PostgreSQL). Such a column may be null: it is so in the rows of before, and in those
# of a replica that still runs the former version.
ADDED: dict[int, tuple[tuple[str, str, str], ...]] = {
    2: (
        ("learning_captures", "model", "TEXT"),
        ("learning_labels", "local_model", "TEXT"),
        ("learning_labels", "frontier_model", "TEXT"),
    ),
    # And new tables: a program that does not know them finds chains broken and books too small.
    3: (
        ("usage_records", "service_tier", "TEXT"),
        ("usage_records", "unpriced", "TEXT"),
    ),
}

metadata = MetaData()

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

usage_records = Table(
    "usage_records",
    metadata,
    Column("attempt_id", String, primary_key=True),
    Column("request_id", String, nullable=False, index=True),
    Column("decision_id", String, nullable=False),
    Column("ts", Double, nullable=False),
    Column("org", String, nullable=False),
    Column("team", String, nullable=False),
    Column("user", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("policy", String, nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("backend", String, nullable=False),
    Column("model", String, nullable=False),
    Column("provider", String, nullable=False),
    Column("tier", String, nullable=False),
    Column("operation", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("outcome", String, nullable=False),
    Column("error", Text, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("ms_total", Double, nullable=False),
    Column("ms_first", Double),
    Column("cache", String, nullable=False),
    Column("service_tier", Text),
    Column("unpriced", Text),
    Index("usage_by_org", "org", "ts"),
)

# `body` is the record as canonical JSON and is what the chain is made of; the other columns are
# copies for queries, which verification compares with it.
decision_records = Table(
    "decision_records",
    metadata,
    Column("decision_id", String, primary_key=True),
    Column("org", String, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("prev_hash", String, nullable=False),
    Column("hash", String, nullable=False),
    Column("request_id", String, nullable=False, index=True),
    Column("ts", Double, nullable=False),
    Column("team", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("policy", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("refusal", String),
    Column("body", Text, nullable=False),
    UniqueConstraint("org", "seq", name="one_chain_per_org"),
    Index("decisions_by_org", "org", "ts"),
)

chain_heads = Table(
    "chain_heads",
    metadata,
    Column("org", String, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String, nullable=False),
)

# The last row of a chain that retention has deleted; none where the first one is there.
chain_starts = Table(
    "chain_starts",
    metadata,
    Column("org", String, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String, nullable=False),
)

# What the usage records that retention has deleted had cost, for budgets whose books must be made
# anew: by UTC day (`day` 0 is 1970-01-01), of scopes that have had a budget. `last`: the latest of
# their times, in seconds since the epoch.
spent_before = Table(
    "spent_before",
    metadata,
    Column("org", String, primary_key=True),
    Column("scope", String, primary_key=True),
    Column("day", BigInteger, primary_key=True),
    Column("cost_nano", BigInteger, nullable=False),
    Column("last", Double, nullable=False),
)

ledger_marks = Table(
    "ledger_marks",
    metadata,
    Column("org", String, primary_key=True),
    Column("scope", String, primary_key=True),
)
