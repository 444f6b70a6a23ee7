from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.config import Config, ConfigError
from gateway.config.load import default_policy
from gateway.config.model import PolicySource
from gateway.policies import (
    NothingToRollBack,
    PoliciesUnavailable,
    PolicyReadOnly,
    PolicyStale,
    PreconditionMissing,
    UnknownPolicy,
    Write,
)
from gateway.policies.document import decode, encode, from_file
from routers.types import Policy

STRICT = {"threshold": 0.9, "labels": {"phi": {"tiers": ["local"]}}}


@pytest.fixture
def file(hash_key: str) -> Config:
    policies = {"default": default_policy(), "cheap": Policy(route="weak")}
    return Config(policies=policies)


@pytest.fixture
def owned(file: Config) -> Config:
    return msgspec.structs.replace(file, policy=PolicySource(source="database"))


async def put(worker: Any, name: str, document: dict[str, Any], **given: Any) -> Any:
    etag = worker.policies.get(name).etag
    return await worker.policies.put(name, document, Write("root", if_match=etag, **given))


async def test_a_file_is_served_and_never_written(cluster: Any, file: Config) -> None:
    worker = await cluster.worker(file)
    policies = worker.policies
    assert policies.get("cheap").policy.route == "weak"
    assert policies.get("") is policies.get("default")
    assert [found.name for found in policies.active()] == ["cheap", "default"]
    with pytest.raises(UnknownPolicy):
        policies.get("nope")
    for write in (
        policies.put("cheap", STRICT, Write("root", if_match="*")),
        policies.activate("cheap", 1, Write("root")),
        policies.rollback("cheap", Write("root")),
    ):
        with pytest.raises(PolicyReadOnly):
            await write
    assert cluster.sql("SELECT count(*) FROM policy_documents") == [(0,)]


def test_an_edited_file_has_another_version_and_etag() -> None:
    first, same = from_file("a", Policy()), from_file("a", Policy())
    edited = from_file("a", Policy(threshold=0.3))
    assert (first.version, first.etag) == (same.version, same.etag)
    assert first.version != edited.version and first.etag != edited.etag
    assert 0 <= edited.version < 2**31


def test_a_document_survives_the_database() -> None:
    policy = default_policy()
    assert decode(encode(policy)) == policy


async def test_an_empty_database_is_seeded_once(cluster: Any, owned: Config) -> None:
    workers = await asyncio.gather(*(cluster.worker(owned) for _ in range(3)))
    for worker in workers:
        assert worker.policies.get("cheap").version == 1
        assert worker.policies.get().policy == default_policy()
    more = msgspec.structs.replace(owned, policies={**owned.policies, "late": Policy()})
    worker = await cluster.worker(more)
    with pytest.raises(UnknownPolicy):
        worker.policies.get("late")


async def test_a_new_version_is_in_force_everywhere(
    cluster: Any, owned: Config, eventually: Any
) -> None:
    first, second = await cluster.worker(owned), await cluster.worker(owned)
    deaf = await cluster.worker(owned, deaf=True)
    made = await put(first, "cheap", STRICT, comment="stricter")
    assert made.version == 2
    assert first.policies.get("cheap") == made

    async def reached() -> bool:
        return all(w.policies.get("cheap") == made for w in (second, deaf))

    await eventually(reached)
    newest, oldest = await second.policies.history("cheap")
    assert (newest.author, newest.comment, newest.active) == ("root", "stricter", True)
    assert (oldest.version, oldest.author, oldest.active) == (1, "config", False)


async def test_a_write_says_what_it_replaces(cluster: Any, owned: Config) -> None:
    policies = (await cluster.worker(owned)).policies
    with pytest.raises(PreconditionMissing):
        await policies.put("cheap", STRICT, Write("root"))
    stale = policies.get("cheap").etag
    made = await policies.put("cheap", STRICT, Write("root", if_match=f'"x", {stale}'))
    for header in (stale, "W/" + made.etag, '""', "nonsense"):
        with pytest.raises(PolicyStale) as caught:
            await policies.put("cheap", {}, Write("root", if_match=header))
        assert caught.value.etag == made.etag
    with pytest.raises(PolicyStale):
        await policies.put("cheap", {}, Write("root", if_none_match="*"))
    with pytest.raises(PolicyStale):
        await policies.put("brand-new", {}, Write("root", if_match="*"))
    assert (await policies.put("brand-new", {}, Write("root", if_none_match="*"))).version == 1
    assert policies.get("cheap") == made


async def test_of_two_writers_one_wins(cluster: Any, owned: Config) -> None:
    workers = [await cluster.worker(owned), await cluster.worker(owned)]
    etag = workers[0].policies.get("cheap").etag
    outcomes = await asyncio.gather(
        *(
            worker.policies.put("cheap", {"threshold": i / 10}, Write("root", if_match=etag))
            for i, worker in enumerate(workers * 3)
        ),
        return_exceptions=True,
    )
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, PolicyStale) for outcome in outcomes) == 5


async def test_a_draft_waits_for_its_activation(cluster: Any, owned: Config) -> None:
    policies = (await cluster.worker(owned)).policies
    before = policies.get("cheap")
    draft = await policies.put("cheap", STRICT, Write("root", if_match=before.etag, activate=False))
    assert policies.get("cheap") == before
    assert await policies.version("cheap", draft.version) == draft
    with pytest.raises(PolicyStale):
        await policies.activate("cheap", draft.version, Write("root", if_match='"other"'))
    assert await policies.activate("cheap", draft.version, Write("root")) == draft
    assert policies.get("cheap") == draft
    with pytest.raises(UnknownPolicy):
        await policies.activate("cheap", 99, Write("root"))


async def test_rolling_back_goes_down_the_versions_that_were_active(
    cluster: Any, owned: Config
) -> None:
    worker = await cluster.worker(owned)
    policies = worker.policies
    await put(worker, "cheap", {"threshold": 0.2})
    await put(worker, "cheap", {"threshold": 0.3}, activate=False)
    await put(worker, "cheap", {"threshold": 0.4})
    seen = [policies.get("cheap").version]
    for _ in range(2):
        seen.append((await policies.rollback("cheap", Write("root"))).version)
    assert seen == [4, 2, 1]
    with pytest.raises(NothingToRollBack):
        await policies.rollback("cheap", Write("root"))
    with pytest.raises(UnknownPolicy):
        await policies.rollback("nope", Write("root"))
    assert policies.get("cheap").version == 1


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"treshold": 1}, "treshold"),
        ({"threshold": "high"}, "threshold"),
        ({"threshold": 3}, "threshold"),
        ({"labels": {"phi": {"tier": []}}}, "labels.phi.tier"),
        ({"labels": {"phi": {"tiers": ["moon"]}}}, "labels.phi.tiers[0]"),
        ({"pressure": [{"left": "half", "raise_by": 0}]}, "pressure[0].left"),
        ({"prefer": ["nowhere/x"]}, "prefer[0]"),
        ({"cache_ttl": 9223372036854775807}, "cache_ttl"),
        ({"cache_ttl": 1e23}, "cache_ttl"),
        ({"cache_ttl": -1}, "cache_ttl"),
        ([], "$"),
    ],
)
async def test_what_does_not_fit_is_named_and_not_stored(
    cluster: Any, owned: Config, document: Any, path: str
) -> None:
    worker = await cluster.worker(owned)
    with pytest.raises(ConfigError) as caught:
        await put(worker, "cheap", document)
    assert caught.value.path == path
    assert cluster.sql("SELECT max(version) FROM policy_documents") == [(1,)]


async def test_every_switch_is_in_the_log(cluster: Any, owned: Config) -> None:
    worker = await cluster.worker(owned)
    first = worker.policies.get("cheap").etag
    second = (await put(worker, "cheap", STRICT)).etag
    await worker.policies.rollback("cheap", Write("ada"))
    rows = cluster.sql("SELECT actor, action, target, before, after FROM admin_log ORDER BY id")
    assert rows == [
        ("root", "policy.put", "cheap", first, second),
        ("ada", "policy.rollback", "cheap", second, first),
    ]


async def test_without_the_database_the_last_policies_stay(cluster: Any, owned: Config) -> None:
    worker = await cluster.worker(owned)
    before = worker.policies.get("cheap")
    cluster.break_database()
    with pytest.raises(PoliciesUnavailable):
        await put(worker, "cheap", STRICT)
    with pytest.raises(PoliciesUnavailable):
        await worker.policies.history("cheap")
    assert worker.policies.get("cheap") == before
    cluster.mend_database()
    assert (await put(worker, "cheap", STRICT)).version == 2


async def test_a_default_policy_must_be_there(cluster: Any, owned: Config) -> None:
    await cluster.worker(owned)
    other = msgspec.structs.replace(owned, policy=PolicySource("database", "absent"))
    with pytest.raises(ConfigError, match=r"policy\.default"):
        await cluster.worker(other)
