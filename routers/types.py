"""The values of a decision: frozen and plain, so they can be printed, stored and diffed."""

from __future__ import annotations

from typing import Literal

import msgspec

Operation = Literal["chat", "completions", "embeddings"]
NANO_USD_PER_USD = 1_000_000_000


class Turn(msgspec.Struct, frozen=True):
    role: str
    text: str


class Query(msgspec.Struct, frozen=True):
    """What a router is asked about: the conversation as text, and what else is known of it.
    `partition`: whose it is; verdicts are not remembered across partitions, so that nobody can
    tell from a fast answer what others have asked."""

    turns: tuple[Turn, ...]
    tools: int = 0
    prompt_tokens: int = 0
    partition: str = ""


class Score(msgspec.Struct, frozen=True):
    """What a router says of a request.

    `p_local_ok` and `p_frontier_ok` are probabilities that a local or a frontier model answers
    acceptably; both None when `unclassified` holds the reason why there is no score
    (`deadline`, `model_missing`, `model_failed`, `empty`, `too_busy`). `us` is the time spent, in
    microseconds. Domain, task and language are filled by models that have the head.
    `p_ok` holds the same probability for single candidates (`backend/model`) that have a model
    card; the others are judged by their tier.
    """

    p_local_ok: float | None = None
    p_frontier_ok: float | None = None
    confidence: float | None = None
    domain: str | None = None
    task: str | None = None
    language: str | None = None
    p_ok: dict[str, float] = {}
    tokens: int = 0
    model: str = ""
    us: int = 0
    cached: bool = False
    unclassified: str | None = None

    @property
    def gain(self) -> float | None:
        """How much more likely the frontier is to answer well, in [-1, 1]."""
        if self.p_local_ok is None or self.p_frontier_ok is None:
            return None
        return self.p_frontier_ok - self.p_local_ok


class Candidate(msgspec.Struct, frozen=True):
    """One backend and model that may be asked, with the facts that filters look at.

    `facts` are what the operator states of the backend (`jurisdiction`, `retention`, `hipaa` ...)
    as strings; a fact that is not there counts as not met.
    `worst_cost` is the most this request can cost here, in nano-USD. `healthy` is false while the
    breaker is open. `order` is the operator's order within a tier.
    """

    backend: str
    model: str
    tier: str
    facts: dict[str, str] = {}
    capabilities: frozenset[str] = frozenset()
    context_window: int = 0
    max_output: int = 0
    worst_cost: int = 0
    healthy: bool = True
    order: int = 0

    @property
    def id(self) -> str:
        return f"{self.backend}/{self.model}"


def is_candidate_id(text: str) -> bool:
    """Whether it has the form of a Candidate's id, `backend/model`."""
    backend, _, model = text.partition("/")
    return bool(backend and model)


class Need(msgspec.Struct, frozen=True):
    """What the request needs, whoever answers it.

    `output_tokens`: the most that one answer may have, 0 without a limit; `choices`: how many
    answers are asked for. `explicit`: the client named this backend/model (or an alias of it), or
    None for `auto`.
    `allowed`: patterns (`backend/model`, with `*`) that the key may use; empty means all.
    `max_cost`: nano-USD for this request, from the client. `budget_left`: nano-USD in the
    tightest scope, None without a budget. `budget_share_left` in [0, 1] of the tightest scope.
    `service_tier`: the tier of service that the client asks for, as prices are named by it; empty
    for the usual one.
    """

    operation: Operation = "chat"
    labels: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()
    prompt_tokens: int = 0
    output_tokens: int = 0
    choices: int = 1
    explicit: str | None = None
    allowed: tuple[str, ...] = ()
    max_cost: int | None = None
    budget_left: int | None = None
    budget_share_left: float | None = None
    service_tier: str = ""


class Requirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a label asks of a backend: every named fact must have one of the values.

    `tiers`: allowed tiers, empty means any. `cache`: may answers be cached (exactly, in the
    label's own partition). `audit`: the decision is recorded before the first upstream byte.
    """

    facts: dict[str, tuple[str, ...]] = {}
    tiers: tuple[str, ...] = ()
    cache: bool = True
    audit: bool = True


class PressurePoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At `left` of the budget (share in [0, 1]) the threshold rises by `raise_by`."""

    left: float
    raise_by: float


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a policy promises instead of a fixed threshold; exactly one of the four is given.

    `share`: at most this share of the scored requests goes to the strong tier, in [0, 1].
    `quality`: at least this share of the strong tier's expected quality, in (0, 1].
    `cost`: at most this many USD for 1,000 requests.
    `violation`: conformal mode; at most this rate of requests stays with the weak tier although
    it fails where the strong one would not, with 95 % confidence over the calibration rows.
    """

    share: float | None = None
    quality: float | None = None
    cost: float | None = None
    violation: float | None = None


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named, versioned document that says how requests are decided.

    `threshold`: a request goes to `strong_tier` when its gain is above it. `target`: the threshold
    follows from this promise instead, and `threshold` is where it starts. `key_share`: the largest
    share of one key's scored requests that may go to the strong tier, 1 for no cap. `pressure`:
    points of a piecewise linear curve by which the threshold rises as the budget runs out.
    `labels`: what each label asks of a backend; **a label not listed here makes every backend
    ineligible**.
    `unclassified`: the tier for requests without a score, and for those whose score has a
    `confidence` below `min_confidence`, in [0, 1]: 0 takes every score. `detect`: data classes to
    look for; each detected class becomes a label of the same name. `detect_by`: patterns alone, or
    also the router's model where it has one. `mandatory_labels`: labels that every
    request under this policy carries. `fallback`: whether the other tier may be tried when the
    preferred one fails. `cache_ttl`: seconds, 0 turns the exact cache off. `opaque_label`: the
    label of requests with content that no detector can read (images, audio, files, token ids,
    content parts of any type that is not text, base64 data).
    """

    weak_tier: str = "local"
    strong_tier: str = "frontier"
    threshold: float = 0.1
    target: Target | None = None
    key_share: float = 1.0
    pressure: tuple[PressurePoint, ...] = ()
    unclassified: str = "frontier"
    min_confidence: float = 0.0
    route: Literal["score", "weak", "strong"] = "score"
    labels: dict[str, Requirement] = {}
    mandatory_labels: tuple[str, ...] = ()
    detect: tuple[str, ...] = ("pii", "phi")
    detect_by: Literal["patterns", "both"] = "patterns"
    fallback: bool = True
    cache_ttl: int = 3600
    prefer: tuple[str, ...] = ()
    score_deadline_ms: float = 250.0
    opaque_label: str = ""


class Rejection(msgspec.Struct, frozen=True):
    """Why a candidate was left out. `filter` is the step, `reason` names what was missing."""

    candidate: str
    filter: Literal["residency", "permission", "capability", "health", "budget"]
    reason: str


class Decision(msgspec.Struct, frozen=True):
    """The plan, every rejected candidate with its reason, and the facts used.

    `plan` holds candidates in the order in which they are tried; empty means refused, and
    `refusal` then names the filter that left none, or is `unknown_model` or `no_backend`.
    `reason` says in one word why the first of the plan is first: `explicit`, `residency`,
    `only_candidate`, `score_below`, `score_above`, `unclassified`, `low_confidence`, `policy`,
    `permission`, `budget`, `capability`, `health`; `target` where the policy's promise overruled
    the threshold, `key_share` where the key has had its share of strong calls. `threshold` as it
    was in force, budget pressure included; `target`: the promise that it follows, empty for a
    fixed one. `gain`: what was held against it, of the candidates that come first in their tiers.
    """

    plan: tuple[Candidate, ...]
    rejected: tuple[Rejection, ...] = ()
    reason: str = ""
    refusal: str | None = None
    policy: str = ""
    policy_version: int = 0
    labels: tuple[str, ...] = ()
    score: Score | None = None
    threshold: float | None = None
    needs_score: bool = False
    gain: float | None = None
    target: str = ""
