"""A decision for readers: as a table for people, as plain values for programs."""

from __future__ import annotations

from typing import Any

import msgspec

from routers.budget import usd
from routers.types import Candidate, Decision, Score


def to_dict(decision: Decision) -> dict[str, Any]:
    """Plain JSON values in a stable order, so that two decisions can be compared as text."""
    plain: dict[str, Any] = msgspec.to_builtins(decision, order="deterministic")
    if decision.score is not None:
        plain["score"]["gain"] = decision.score.gain
    return plain


def render(decision: Decision) -> str:
    """The decision as a table of fixed-width text, without a final newline."""
    first = decision.plan[0] if decision.plan else None
    if first is None:
        outcome = f"refused: {decision.refusal}"
    else:
        outcome = f"{first.id} ({first.tier}), because: {decision.reason}"
    facts = [
        ("decision", outcome),
        ("policy", f"{decision.policy} v{decision.policy_version}"),
        ("labels", ", ".join(decision.labels) or "none"),
        ("score", _score(decision)),
    ]
    lines = [f"{name:<9} {value}" for name, value in facts]
    rows = [("try", "candidate", "tier", "at most", "why")]
    rows += [_planned(at, candidate) for at, candidate in enumerate(decision.plan, 1)]
    rows += [("-", r.candidate, "", "", f"{r.filter}: {r.reason}") for r in decision.rejected]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines.append("")
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[4]]).rstrip())
    return "\n".join(lines)


def _planned(at: int, candidate: Candidate) -> tuple[str, str, str, str, str]:
    facts = ", ".join(f"{name}={value}" for name, value in sorted(candidate.facts.items()))
    return str(at), candidate.id, candidate.tier, usd(candidate.worst_cost), facts


def _score(decision: Decision) -> str:
    score = decision.score
    if score is None:
        return "needed, not taken" if decision.needs_score else "not needed"
    if score.unclassified is not None or score.gain is None:
        return f"unclassified ({score.unclassified or 'no score'})"
    if decision.reason == "low_confidence":
        return f"not sure enough (gain {score.gain:+.3f}, confidence {score.confidence:.3f})"
    return _gain(score, decision)


def _gain(score: Score, decision: Decision) -> str:
    against = "" if decision.threshold is None else f" against {decision.threshold:.3f}"
    if decision.target:
        against += f", which follows {decision.target}"
    gain = score.gain if decision.gain is None else decision.gain
    return (
        f"gain {gain:+.3f}{against} "
        f"(local ok {score.p_local_ok:.3f}, frontier ok {score.p_frontier_ok:.3f})"
    )
