"""The policies in force, their versions and their history."""

from __future__ import annotations

from gateway.policies.document import PolicyVersion
from gateway.policies.errors import (
    NothingToRollBack,
    PoliciesUnavailable,
    PolicyError,
    PolicyReadOnly,
    PolicyStale,
    PreconditionMissing,
    UnknownPolicy,
)
from gateway.policies.policies import Policies, Write, check_names
from gateway.policies.repository import Revision

__all__ = [
    "NothingToRollBack",
    "Policies",
    "PoliciesUnavailable",
    "PolicyError",
    "PolicyReadOnly",
    "PolicyStale",
    "PolicyVersion",
    "PreconditionMissing",
    "Revision",
    "UnknownPolicy",
    "Write",
    "check_names",
]
