"""Shadow comparison: a share of the local answers is asked of a frontier model too, and judged.

Everything happens behind the client's answer, in a bounded queue with a bounded number of calls.
Where the conversation may go is decided by the same filters as for any request, anew for each of
the two calls: the labels and what the router's model sees in the text, the key's permissions,
capabilities, health.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec

from gateway.auth import Principal
from gateway.catalog import Catalog
from gateway.config.model import LearningConfig
from gateway.exchange import Exchange
from gateway.learning import forgetting, judge
from gateway.learning.answers import answer_text
from gateway.learning.capture import MAX_CONVERSATION, MAX_TEXT, scored_of
from gateway.learning.consent import Consent, Look, labels_of
from gateway.learning.purse import Ask, AskFailed, Kind, Purse
from gateway.learning.types import Label, Scored, conversation_of
from gateway.policies import Policies, UnknownPolicy
from gateway.records import Database, RecordsError
from routers.decide import ActivePolicy, Filtered, FilterName, filter_candidates, plan
from routers.residency import residency_gap
from routers.text import opaque_content, turns_of
from routers.types import Candidate, Need

log = logging.getLogger("tollhouse.learning")

LABELLED = "labelled"
_MAX_TOKENS = 64 << 10
# Seconds from the request. What a key may do is known as of its request: a conversation must not
# wait for hours behind a slow judge and be sent on when its key is long revoked.
MAX_AGE = 300.0
# Whose request it was, how it is to be delivered and kept: none of it is part of the question.
_LEFT_OUT = frozenset(
    {
        "metadata",
        "model",
        "prompt_cache_key",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "user",
    }
)


class Job(msgspec.Struct, frozen=True):
    """An answer of the weak tier that is to be compared. `policy` is the name of the one that
    decided, `local` the `backend/model` that answered, `events` the answer as the client got it."""

    decision_id: str
    principal: Principal
    policy: str
    need: Need
    body: dict[str, Any]
    local: str
    events: list[bytes]
    at: float
    scored: Scored
    look: Look


class Shadow:
    """`count` is told the outcome of each comparison: `labelled`, or why it gave no label."""

    def __init__(
        self,
        settings: LearningConfig,
        default_policy: str,
        policies: Policies,
        catalog: Catalog,
        database: Database,
        purse: Purse,
        count: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings.shadow
        self._max_rows = settings.max_rows
        self._consent = Consent(settings)
        self._default = default_policy
        self._policies = policies
        self._catalog = catalog
        self._database = database
        self._purse = purse
        self._count = count
        self._clock = clock
        self._queue: asyncio.Queue[Job] = asyncio.Queue(settings.shadow.queue)
        self._bound = int(settings.shadow.share * 2**64)
        self.busy = 0

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def samples(self, ex: Exchange) -> bool:
        """Whether this request's answer is wanted, should the weak tier give it. The draw follows
        from the decision's id, which is random."""
        if not self._bound or ex.inbound.operation != "chat" or ex.need.explicit is not None:
            return False
        drawn = blake2b(ex.decision_id.encode(), digest_size=8, person=b"shadow").digest()
        if int.from_bytes(drawn, "big") >= self._bound or not self._consent.gives(ex):
            return False
        decision, body = ex.decision, ex.inbound.body
        return (
            decision is not None
            and any(c.tier == ex.active.policy.weak_tier for c in decision.plan)
            and ex.need.choices == 1
            and ex.need.prompt_tokens <= _MAX_TOKENS
            and not body.get("tools")
            and not body.get("functions")
            and not opaque_content(body)
        )

    def offer(self, ex: Exchange, by: Candidate, events: list[bytes] | None, look: Look) -> None:
        """The client of a sampled request has its whole answer, by this one. `events` is None when
        they were too many to be kept."""
        if by.tier != ex.active.policy.weak_tier:
            return
        if events is None:
            self._count("no_local_text")
            return
        job = Job(
            decision_id=ex.decision_id,
            principal=ex.principal,
            policy=ex.active.name,
            need=msgspec.structs.replace(
                ex.need,
                labels=labels_of(ex),
                max_cost=None,
                budget_left=None,
                budget_share_left=None,
            ),
            body=ex.inbound.body,
            local=by.id,
            events=events,
            at=ex.wall,
            scored=scored_of(ex),
            look=look,
        )
        try:
            self._queue.put_nowait(job)
        except asyncio.QueueFull:
            self._count("queue_full")

    async def run(self) -> None:
        """For ever; cancel to end. Run it `concurrency` times."""
        while True:
            job = await self._queue.get()
            self.busy += 1
            try:
                outcome = await self._compare(job)
            except AskFailed as exc:
                log.info("comparison of %s gave no label: %s", job.decision_id, exc)
                outcome = exc.reason
            except asyncio.CancelledError:
                self._count("cancelled")
                raise
            except Exception:
                # The border of this background task: a defect must cost one comparison only.
                log.exception("comparison of %s failed", job.decision_id)
                outcome = "failed"
            finally:
                self.busy -= 1
            self._count(outcome)

    async def _compare(self, job: Job) -> str:
        if self._clock() - job.at > MAX_AGE:
            return "too_old"
        conversation = conversation_of(job.body)
        if len(conversation) > MAX_CONVERSATION or len(job.look.text) > MAX_TEXT:
            return "too_long"
        local, turns = answer_text(job.events), turns_of(job.body)
        if local is None:
            return "no_local_text"
        # The judge is shown the answer as well.
        seen = await asyncio.to_thread(job.look.classes_with, local)
        if not self._consent.labels(seen):
            return "data_class"
        need = msgspec.structs.replace(job.need, labels=job.need.labels | seen)
        job = msgspec.structs.replace(job, need=need)
        frontier = self._frontier(job)
        # Before anything is paid: an answer that nobody may judge is of no use.
        self._judge(job, judge.question(job.decision_id, turns, local, ""))
        answer = await self._purse.ask(frontier)
        asked = judge.question(job.decision_id, turns, local, answer)
        said = await self._purse.ask(self._judge(job, asked))
        verdict = judge.parse_verdict(job.decision_id, said)
        if verdict is None:
            return "verdict_unreadable"
        scored = job.scored
        label = Label(
            decision_id=job.decision_id,
            source="shadow",
            org=job.principal.org,
            ts=job.at,
            created=self._clock(),
            conversation=conversation,
            local_ok=float(verdict.local_ok),
            frontier_ok=float(verdict.frontier_ok),
            local_model=job.local,
            frontier_model=frontier.candidate.id,
            p_local_ok=scored.p_local_ok,
            p_frontier_ok=scored.p_frontier_ok,
            threshold=scored.threshold,
            artefact=scored.artefact,
        )
        try:
            added = await self._database.write(forgetting.add_label, label, self._max_rows)
        except RecordsError as exc:
            raise AskFailed("database", str(exc)) from exc
        return LABELLED if added else "deleted"

    def _frontier(self, job: Job) -> Ask:
        body = {name: value for name, value in job.body.items() if name not in _LEFT_OUT}
        explicit = self._settings.backend or None
        need = msgspec.structs.replace(job.need, explicit=explicit, service_tier="")
        filtered = self._eligible(job, need)
        tier = filtered.active.policy.strong_tier
        wanted = [
            c for c in plan(filtered, None).plan if need.explicit is not None or c.tier == tier
        ]
        return self._ask("shadow", job, filtered, wanted, body)

    def _judge(self, job: Job, body: dict[str, Any]) -> Ask:
        model = self._catalog.counting_model(self._settings.judge)
        limit = judge.most_tokens(self._catalog.most_output(self._settings.judge))
        body = {**body, "max_tokens": limit}
        need = Need(
            operation="chat",
            labels=job.need.labels,
            capabilities=frozenset(("chat",)),
            prompt_tokens=self._catalog.tokens.estimate_chat(body, model).tokens,
            output_tokens=limit,
            explicit=self._settings.judge,
            allowed=job.need.allowed,
        )
        filtered = self._eligible(job, need)
        form = next((judge.response_format(c.capabilities) for c in filtered.eligible), None)
        if form is not None:
            body = {**body, "response_format": form}
        return self._ask("judge", job, filtered, list(filtered.eligible), body)

    def _eligible(self, job: Job, need: Need) -> Filtered:
        """What the policies in force now allow; a client's choice of policy stays within what the
        key's own policy asks of the labels it lists, as at admission."""
        try:
            active = self._policies.get(job.policy)
            base = self._policies.get(job.principal.policy or self._default).policy
        except UnknownPolicy as exc:
            raise AskFailed("policy", str(exc)) from exc
        listed = need.labels.intersection(base.labels)
        kept: list[Candidate] = []
        barred: dict[str, FilterName] = {}
        for candidate in self._catalog.candidates(need):
            if residency_gap(candidate, listed, base) is None:
                kept.append(candidate)
            else:
                barred[candidate.tier] = "residency"
        # Which tier a policy prefers says nothing here: the strong one is what is compared with.
        strong = msgspec.structs.replace(active.policy, route="strong")
        filtered = filter_candidates(ActivePolicy(active.name, active.version, strong), need, kept)
        return msgspec.structs.replace(filtered, removed={**barred, **filtered.removed})

    def _ask(
        self,
        kind: Kind,
        job: Job,
        filtered: Filtered,
        wanted: list[Candidate],
        body: dict[str, Any],
    ) -> Ask:
        if not wanted:
            named = self._settings.judge if kind == "judge" else self._settings.backend
            tier = filtered.active.policy.strong_tier
            removed = filtered.removed
            step = next(iter(removed.values()), None) if named else removed.get(tier)
            raise AskFailed(f"{kind}_{step or 'no_backend'}")
        return Ask(
            kind=kind,
            of=job.decision_id,
            org=job.principal.org,
            candidate=wanted[0],
            filtered=filtered,
            body=body,
        )
