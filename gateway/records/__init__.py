"""Usage and decisions, durable and queryable; never on the path of a request."""

from __future__ import annotations

from gateway.records.books import LedgerBooks
from gateway.records.chain import (
    ChainReport,
    Cut,
    Head,
    ReadChains,
    Witness,
    append_decisions,
    verify_chain,
)
from gateway.records.database import Database, insert_or_ignore
from gateway.records.drainer import Drainer, OutboxLag, file_records
from gateway.records.errors import (
    RecordsError,
    RecordsRejected,
    RecordsUnavailable,
    SchemaMismatch,
)
from gateway.records.queries import (
    ChainedDecision,
    RecordFilter,
    UsageSummary,
    get_decision,
    list_decisions,
    list_usage,
    summarize_usage,
)
from gateway.records.retention import Removed, Retention
from gateway.records.types import (
    DecisionRecord,
    FiledDecision,
    FiledUsage,
    RejectedCandidate,
    UsageRecord,
    encode_record,
)
from gateway.records.witness import Witnesses

__all__ = [
    "ChainReport",
    "ChainedDecision",
    "Cut",
    "Database",
    "DecisionRecord",
    "Drainer",
    "FiledDecision",
    "FiledUsage",
    "Head",
    "LedgerBooks",
    "OutboxLag",
    "ReadChains",
    "RecordFilter",
    "RecordsError",
    "RecordsRejected",
    "RecordsUnavailable",
    "RejectedCandidate",
    "Removed",
    "Retention",
    "SchemaMismatch",
    "UsageRecord",
    "UsageSummary",
    "Witness",
    "Witnesses",
    "append_decisions",
    "encode_record",
    "file_records",
    "get_decision",
    "insert_or_ignore",
    "list_decisions",
    "list_usage",
    "summarize_usage",
    "verify_chain",
]
