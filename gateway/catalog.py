"""What this gateway can call: backends, their models, prices and health, and the names for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import msgspec

from backends.base import Backend, Timeouts, Usage
from backends.pool import ReplicaState
from backends.prices import Price, gpu_second_cost
from backends.profiles import Profile
from backends.retry import RetryBudget
from backends.tokens import TokenCounter
from gateway.auth import Principal
from gateway.exchange import Attempt
from routers.cards import Card
from routers.types import Candidate, Need, Policy


class UnknownModel(Exception):
    """The client named a model that no alias, policy or backend has."""


class Pooled(Backend, Protocol):
    """A backend whose health is known."""

    @property
    def healthy(self) -> bool: ...

    def snapshot(self) -> list[ReplicaState]: ...


@dataclass(frozen=True, slots=True)
class Target:
    """One model of one backend. `upstream` is the provider's name for it. `address`: host and port
    of the backend, `("", None)` where it has several or none. `sends_tier`: its API is told which
    service tier a client asks for."""

    backend: Pooled
    name: str
    model: str
    upstream: str
    provider: str
    tier: str
    facts: dict[str, str]
    price: Price
    profile: Profile
    timeouts: Timeouts
    drop_params: bool
    gpu_second: int
    order: int
    stand_in: bool
    address: tuple[str, int | None]
    sends_tier: bool

    @property
    def id(self) -> str:
        return f"{self.name}/{self.model}"


class Catalog:
    """Immutable but for health, for the last known share of each budget, for the service tier that
    each target serves those in who ask for none, and for `cards`, the model cards by candidate id:
    they come with the router's artefact and change with it.

    `aliases` map a client's model name to `auto`, `auto:POLICY` or `backend/model`.
    """

    def __init__(
        self,
        targets: tuple[Target, ...],
        aliases: Mapping[str, str],
        tokens: TokenCounter,
        retry_budget: RetryBudget,
        cards: Mapping[str, Card] | None = None,
    ) -> None:
        self.targets = targets
        self.tokens = tokens
        self.retry_budget = retry_budget
        self._aliases = dict(aliases)
        self.cards = dict(cards or {})
        self._by_id = {t.id: t for t in targets}
        self._by_model: dict[str, Target] = {}
        for target in targets:
            self._by_model.setdefault(target.model, target)
        self._shares: dict[str, float] = {}
        self._usual_tiers: dict[str, str] = {}

    def resolve(self, model: str) -> tuple[str | None, str | None]:
        """(policy, explicit): at most one is set; both None means `auto`. An alias wins over a
        backend's model of the same name; a bare model name means the first backend that has it.
        Raises UnknownModel."""
        name = self._aliases.get(model, model)
        if name == "auto":
            return None, None
        if name.startswith("auto:"):
            return name[5:], None
        if name in self._by_id:
            return None, name
        target = self._by_model.get(name)
        if target is None:
            raise UnknownModel(model)
        return None, target.id

    def candidates(self, need: Need) -> list[Candidate]:
        """Every target with the worst this request can cost there, in nano-USD."""
        found = []
        for t in self.targets:
            if need.explicit is not None and t.id != need.explicit:
                continue
            output = (need.output_tokens or t.profile.max_output) * need.choices
            tier = self.asked_tier(t, need) or self._usual_tiers.get(t.id, "")
            cost = t.price.worst_cost(
                need.prompt_tokens, output, tier, audio="audio" in need.capabilities
            )
            if t.gpu_second:
                cost += gpu_second_cost(t.timeouts.total, t.gpu_second)
            found.append(
                Candidate(
                    backend=t.name,
                    model=t.model,
                    tier=t.tier,
                    facts=t.facts,
                    capabilities=t.profile.capabilities,
                    context_window=t.profile.context_window,
                    max_output=t.profile.max_output,
                    worst_cost=cost,
                    healthy=t.backend.healthy,
                    order=t.order,
                )
            )
        return found

    def target(self, candidate: Candidate) -> Target:
        return self._by_id[candidate.id]

    def counting_model(self, explicit: str | None) -> str:
        """The model whose tokenizer counts the prompt: the explicit one, or that of the dearest
        target, where a wrong count would cost most."""
        if explicit is not None:
            return self._by_id[explicit].upstream
        return self._dearest

    def most_output(self, explicit: str) -> int:
        """The output tokens that a target gives at most, 0 where that is not known."""
        return self._by_id[explicit].profile.max_output

    @cached_property
    def _dearest(self) -> str:
        dearest = max(self.targets, key=lambda t: t.price.input, default=None)
        return dearest.upstream if dearest is not None else ""

    def asked_tier(self, target: Target, need: Need) -> str:
        """The service tier that a call asks a target for; empty for the usual one."""
        return need.service_tier if target.sends_tier else ""

    def note_tier(self, target: Target, tier: str) -> None:
        """The tier in which a call was served that asked for none: the provider's own setting, so
        that the next one has to be reserved for it."""
        if tier:
            self._usual_tiers[target.id] = tier
        else:
            self._usual_tiers.pop(target.id, None)

    def bill(self, attempt: Attempt) -> None:
        """Set what an attempt cost, in nano-USD (tokens at the price of its service tier plus time
        on our GPU), and what of it has no known price."""
        usage = attempt.usage
        if usage is None:
            return
        target = self._by_id[attempt.candidate.id]
        price = target.price
        missing: tuple[str, ...] = ()
        if attempt.beside and not price.free:
            usage, missing = _beside(usage, attempt.beside, price)
        gaps = price.gaps(usage, attempt.service_tier)
        attempt.unpriced = tuple(dict.fromkeys((*gaps, *missing)))
        attempt.cost = price.cost(usage, attempt.service_tier)
        if target.gpu_second and attempt.ended is not None:
            attempt.cost += gpu_second_cost(attempt.ended - attempt.started, target.gpu_second)

    def share_left(self, principal: Principal) -> float | None:
        """The last known share left of the principal's tightest budget, in [0, 1]; None without a
        budget."""
        for scope in principal.scopes:
            if scope.budget is not None:
                return self._shares.get(principal.key_id)
        return None

    def carded(self, policy: Policy) -> str:
        """The first target of the policy's two tiers that its card judges otherwise than by its
        tier; empty when there is none. Any of a tier may be tried first: the others may be down."""
        bases = {policy.weak_tier: "local", policy.strong_tier: "frontier"}
        for t in self.targets:
            card = self.cards.get(t.id)
            if card is not None and t.tier in bases:
                moved = card.slope != 1.0 or card.offset or any(card.domain.values())
                if moved or card.base != bases[t.tier]:
                    return t.id
        return ""

    def use_cards(self, cards: Mapping[str, Card]) -> None:
        """From now on these; to be called when another artefact begins to score."""
        self.cards = dict(cards)

    def note_share(self, principal: Principal, share: float | None) -> None:
        if share is None:
            self._shares.pop(principal.key_id, None)
        else:
            self._shares[principal.key_id] = share

    def models(self) -> list[dict[str, Any]]:
        """Rows for /v1/models: aliases, `auto`, and each backend's models."""
        rows = [_row("auto", "tollhouse")]
        rows += [_row(name, "tollhouse", target=to) for name, to in sorted(self._aliases.items())]
        for t in self.targets:
            rows.append(
                _row(
                    t.id,
                    t.name,
                    tier=t.tier,
                    jurisdiction=t.facts.get("jurisdiction"),
                    provider=t.provider,
                    context_window=t.profile.context_window,
                    capabilities=sorted(t.profile.capabilities),
                    stand_in=t.stand_in,
                )
            )
        return rows

    def snapshot(self) -> list[dict[str, Any]]:
        """Backends with their models and the health of each replica, for the admin API."""
        rows: dict[str, dict[str, Any]] = {}
        for t in self.targets:
            row = rows.setdefault(
                t.name,
                {
                    "name": t.name,
                    "provider": t.provider,
                    "tier": t.tier,
                    "facts": t.facts,
                    "stand_in": t.stand_in,
                    "healthy": t.backend.healthy,
                    "models": [],
                    "cards": {},
                    "replicas": msgspec.to_builtins(t.backend.snapshot()),
                },
            )
            row["models"].append(t.model)
            card = self.cards.get(t.id)
            row["cards"][t.model] = None if card is None else msgspec.to_builtins(card)
        return list(rows.values())

    async def aclose(self) -> None:
        for backend in {id(t.backend): t.backend for t in self.targets}.values():
            await backend.aclose()


def _beside(usage: Usage, asked: tuple[str, ...], price: Price) -> tuple[Usage, tuple[str, ...]]:
    """The usage of a request that asked for more than usual tokens, and for what of it there is no
    price. Audio that an upstream does not count apart is taken to be all of the prompt."""
    missing = ["web_search"] if "web_search" in asked else []
    if "audio" in asked and not (usage.audio_prompt or usage.audio_completion):
        usage = msgspec.structs.replace(usage, audio_prompt=usage.prompt)
    return usage, tuple(missing)


def _row(name: str, owner: str, **facts: Any) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner, "tollhouse": facts}
