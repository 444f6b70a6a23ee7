"""The tables of learning. Conversations are in `captures` and `labels` only. The indexes by
organisation are for `repository.trim`, which counts."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.records.schema import metadata

# `side`: whether the policy's weak or strong tier answered, "" for another one. `model`: which of
# its models did, as `backend/model`; null in rows from before that was kept.
captures = sa.Table(
    "learning_captures",
    metadata,
    sa.Column("decision_id", sa.String(64), primary_key=True),
    sa.Column("org", sa.String(128), nullable=False),
    sa.Column("ts", sa.Double, nullable=False, index=True),
    sa.Column("conversation", sa.Text, nullable=False),
    sa.Column("side", sa.String(8), nullable=False),
    sa.Column("p_local_ok", sa.Double),
    sa.Column("p_frontier_ok", sa.Double),
    sa.Column("threshold", sa.Double),
    sa.Column("artefact", sa.String(256), nullable=False),
    sa.Column("model", sa.Text),
    sa.Index("captures_by_org", "org", "ts"),
)

# Why a conversation that was answered is not in `captures`: `too_long`, `opaque` or `data_class`.
uncaptured = sa.Table(
    "learning_uncaptured",
    metadata,
    sa.Column("decision_id", sa.String(64), primary_key=True),
    sa.Column("org", sa.String(128), nullable=False),
    sa.Column("ts", sa.Double, nullable=False, index=True),
    sa.Column("reason", sa.String(16), nullable=False),
    sa.Index("uncaptured_by_org", "org", "ts"),
)

# One line for each key that spoke of a decision; `outcome` in [0, 1].
feedback = sa.Table(
    "learning_feedback",
    metadata,
    sa.Column("decision_id", sa.String(64), primary_key=True),
    sa.Column("key_id", sa.String(64), primary_key=True),
    sa.Column("org", sa.String(128), nullable=False),
    sa.Column("ts", sa.Double, nullable=False, index=True),
    sa.Column("outcome", sa.Double, nullable=False),
    sa.Column("comment", sa.String(500), nullable=False),
    sa.Index("feedback_by_org", "org", "ts"),
)

# `source`: `feedback` or `shadow`. `ts` is when the request was made. At least one of the two
# labels is set, both in [0, 1]. `local_model` and `frontier_model` say of whose answer each of them
# is, as `backend/model`; null without the label, and in rows from before that was kept.
labels = sa.Table(
    "learning_labels",
    metadata,
    sa.Column("decision_id", sa.String(64), primary_key=True),
    sa.Column("source", sa.String(16), primary_key=True),
    sa.Column("org", sa.String(128), nullable=False),
    sa.Column("ts", sa.Double, nullable=False, index=True),
    sa.Column("conversation", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("local_ok", sa.Double),
    sa.Column("frontier_ok", sa.Double),
    sa.Column("p_local_ok", sa.Double),
    sa.Column("p_frontier_ok", sa.Double),
    sa.Column("threshold", sa.Double),
    sa.Column("artefact", sa.String(256), nullable=False),
    sa.Column("local_model", sa.Text),
    sa.Column("frontier_model", sa.Text),
    sa.Index("labels_by_org", "org", "ts"),
)

# Up to when (seconds since the epoch, exclusive) what was learnt of requests is deleted and may not
# come back: one line for `org:NAME`, and one, `*`, for all.
deletions = sa.Table(
    "learning_deletions",
    metadata,
    sa.Column("whose", sa.String(300), primary_key=True),
    sa.Column("before", sa.Double, nullable=False),
)

# `state`: `running`, `done` or `failed`; `report` is JSON.
refits = sa.Table(
    "learning_refits",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created", sa.Double, nullable=False, index=True),
    sa.Column("author", sa.String(64), nullable=False),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("base", sa.String(256), nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("report", sa.Text),
    sa.Column("error", sa.Text, nullable=False),
)

# The last line names the active artefact, "" for the configured one; `before` is what a rollback
# goes back to: the id of an earlier line, 0 for the configured artefact of the beginning.
activations = sa.Table(
    "learning_activations",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("before", sa.Integer, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
)
