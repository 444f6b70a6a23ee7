"""The API under /admin/v1: policies, keys, budgets, backends, decisions, usage."""

from __future__ import annotations

from gateway.admin.context import AdminContext
from gateway.admin.problems import Problem, problem, problem_handler
from gateway.admin.router import COMPONENTS, PATH, admin_router, router_for

__all__ = [
    "COMPONENTS",
    "PATH",
    "AdminContext",
    "Problem",
    "admin_router",
    "problem",
    "problem_handler",
    "router_for",
]
