"""The tables of policies: every version ever stored, and which one of each name is active."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.records.schema import metadata

policy_documents = sa.Table(
    "policy_documents",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("author", sa.String(64), nullable=False),
    sa.Column("comment", sa.String(500), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("activated", sa.Double),
)

active_policies = sa.Table(
    "active_policies",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)
