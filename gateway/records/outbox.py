"""Reading the outbox: entries of an org's stream as records."""

from __future__ import annotations

import msgspec

from gateway.records.types import Record, UsageRecord

_decode = msgspec.json.Decoder(Record).decode
_decode_usage = msgspec.json.Decoder(UsageRecord).decode


class BadEntry(ValueError):
    """An entry that holds no records."""


def parse_entry(fields: list[bytes]) -> list[Record]:
    """The records of one entry: `r` fields hold JSON, and an `x` field holds the draft of an
    attempt whose lease ran out, with why (`t`) and what was booked (`c`, nano-USD).

    Raises BadEntry."""
    names = fields[0::2]
    values = fields[1::2]
    try:
        if names and names[0] == b"x":
            return [_from_draft(values[0], values[1].decode(), int(values[2]))]
        return [_decode(value) for value in values]
    except (msgspec.MsgspecError, IndexError, ValueError) as exc:
        raise BadEntry(str(exc)) from exc


def _from_draft(draft: bytes, outcome: str, cost: int) -> UsageRecord:
    record = _decode_usage(draft)
    return msgspec.structs.replace(
        record,
        attempt_id=f"{record.attempt_id}:{outcome}",
        outcome=outcome,
        cost_nano=cost,
        estimated=True,
    )
