"""What a configuration says that is allowed and probably not meant."""

from __future__ import annotations

from collections.abc import Iterable

from backends.http import UpstreamTransport
from backends.providers import load_providers
from gateway.compose import build_catalog
from gateway.config import Config
from gateway.discover import ON_PREMISES
from routers.decide import matches
from routers.residency import residency_gap
from routers.types import Candidate, Need, Policy


def doubts(config: Config) -> list[str]:
    """A sentence for each, naming the section; none for a configuration that is as expected.

    Policies that stand in the database are not looked at. Raises ConfigError.
    """
    catalog = build_catalog(config, {}, UpstreamTransport())
    candidates = catalog.candidates(Need(capabilities=frozenset({"chat"})))
    found = [said for name, policy in config.policies.items() for said in _policy(name, policy)]
    for name, policy in config.policies.items():
        found += _nowhere(name, policy, candidates)
    found += _backends(config)
    found += _keys(config)
    return found


def _policy(name: str, policy: Policy) -> Iterable[str]:
    for found in policy.detect:
        if found not in policy.labels:
            yield (
                f"policies.{name}: detects {found} and has no label {found}, so that every request "
                f"in which it is found is refused; add labels.{found}, or leave it out of detect"
            )


def _nowhere(name: str, policy: Policy, candidates: list[Candidate]) -> Iterable[str]:
    for label in policy.mandatory_labels:
        if not any(residency_gap(candidate, (label,), policy) is None for candidate in candidates):
            yield f"policies.{name}: no backend satisfies the label {label}"


def _backends(config: Config) -> Iterable[str]:
    providers = load_providers()
    for name, backend in config.backends.items():
        provider = providers.get(backend.provider)
        if provider is None or not (
            backend.tier == "local" or backend.facts.get("jurisdiction") == ON_PREMISES
        ):
            continue
        for model, settings in backend.models.items():
            if provider.hands_on(settings.upstream or model):
                yield (
                    f"backends.{name}.models.{model}: {backend.provider} has it run by servers "
                    "elsewhere, and the backend is said to be local; give it a backend of its own, "
                    "with their tier and facts"
                )


def _uncapped(config: Config, name: str, policy: Policy) -> Iterable[str]:
    """The keys under a policy whose share of the strong tier is capped for `auto` alone, and whose
    spending nothing bounds."""
    if policy.key_share >= 1:
        return
    strong = [
        f"{backend}/{model}"
        for backend, settings in config.backends.items()
        for model in settings.models
        if settings.tier == policy.strong_tier
    ]
    found = [
        f"keys[{at}]"
        for at, key in enumerate(config.keys)
        if (key.policy or config.policy.default) == name
        and key.budget_usd is None
        and any(not key.allow or any(matches(p, m) for p in key.allow) for m in strong)
    ]
    if found:
        yield (
            f"policies.{name}.key_share: bounds requests that leave the choice, and none that "
            f"names a model; {', '.join(found)} may name one of {policy.strong_tier} unbudgeted"
        )


def _keys(config: Config) -> Iterable[str]:
    if not config.keys:
        yield (
            "keys: there is none, so that nobody can ask until one is made with `tollhouse keys "
            "create` (or `keys new`, for this file)"
        )
    served = [
        f"{name}/{model}" for name, backend in config.backends.items() for model in backend.models
    ]
    for name, policy in config.policies.items():
        yield from _uncapped(config, name, policy)
    labels = {label for policy in config.policies.values() for label in policy.labels}
    for at, key in enumerate(config.keys):
        for pattern in key.allow:
            if not any(matches(pattern, model) for model in served):
                yield f"keys[{at}].allow: {pattern} is no model of a backend"
        for label in key.labels:
            if config.policies and label not in labels:
                yield f"keys[{at}].labels: {label} is a label of no policy"
