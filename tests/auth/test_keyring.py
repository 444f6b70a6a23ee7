from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from gateway.auth import (
    AuthError,
    AuthUnavailable,
    KeyNotFound,
    KeyReadOnly,
    KeySpec,
    ReplayConflict,
    ScopeInfo,
    Terms,
    TermsUnreadable,
    format_key,
    keyring,
)
from gateway.auth.admin import replay_of
from gateway.auth.principal import Principal
from gateway.auth.repository import Replay
from gateway.auth.rules import Invalid
from gateway.config import Config
from gateway.config.load import default_policy
from gateway.config.model import AuthConfig, KeyConfig, ScopeConfig
from gateway.ledger import Budget, Scope

CONFIG_KEY = format_key("configconfig", "c" * 43)


@pytest.fixture
def config(hash_key: str) -> Config:
    return Config(
        auth=AuthConfig(hash_key=hash_key),
        policies={"default": default_policy()},
        keys=(KeyConfig(CONFIG_KEY, org="acme", team="red", budget_usd=1.0),),
        scopes=(ScopeConfig("org:acme", labels=("eu",), budget_usd=5.0),),
    )


async def reason(keyring: Any, token: str | None) -> str:
    """Why the key does not open; empty when it does."""
    try:
        await keyring.authenticate(token)
    except AuthError as exc:
        return exc.reason
    return ""


async def test_a_made_key_opens_in_every_worker(cluster: Any, config: Config) -> None:
    first, second = await cluster.worker(config), await cluster.worker(config)
    spec = KeySpec(org="acme", user="ada", labels=("phi",), policy="default", tags=("x",))
    made = await first.keys.create(spec, "admin")
    assert made.key is not None
    for worker in (first, second):
        principal = await worker.keyring.authenticate(made.key)
        assert principal.key_id == made.info.id
        assert principal.labels == {"phi", "eu"}
        assert (principal.org, principal.user, principal.tags) == ("acme", "ada", ("x",))
        assert [scope.id for scope in principal.scopes] == ["org:acme"]


async def test_nothing_in_the_database_holds_the_secret(cluster: Any, config: Config) -> None:
    worker = await cluster.worker(config)
    made = await worker.keys.create(KeySpec(), "admin", replay_of("a-request", KeySpec()))
    secret = made.key[-43:].encode()
    files = list(cluster.path.parent.glob("tollhouse.db*"))
    assert files
    assert all(secret not in file.read_bytes() for file in files)


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (None, "missing"),
        ("", "missing"),
        ("sk-something", "malformed"),
        ("th-configconfig-short", "malformed"),
        (format_key("configconfig", "x" * 43), "invalid"),
        (format_key("unknownkey00", "x" * 43), "invalid"),
        ("th-' OR 1=1 --" + "x" * 45, "malformed"),
    ],
)
async def test_what_does_not_open(
    cluster: Any, config: Config, token: str | None, why: str
) -> None:
    worker = await cluster.worker(config)
    assert await reason(worker.keyring, token) == why


async def test_unknown_and_wrong_are_told_alike(cluster: Any, config: Config) -> None:
    worker = await cluster.worker(config)
    texts = set()
    for key_id in ("configconfig", "unknownkey00"):
        with pytest.raises(AuthError) as caught:
            await worker.keyring.authenticate(format_key(key_id, "x" * 43))
        texts.add(str(caught.value))
    assert texts == {"Incorrect API key."}


async def test_a_key_ends_when_it_expires(cluster: Any, config: Config) -> None:
    worker = await cluster.worker(config)
    made = await worker.keys.create(KeySpec(expires=cluster.clock.now + 10), "admin")
    assert await reason(worker.keyring, made.key) == ""
    cluster.clock.now += 10
    assert await reason(worker.keyring, made.key) == "expired"


async def test_a_revoked_key_closes_everywhere(
    cluster: Any, config: Config, eventually: Any
) -> None:
    first, second = await cluster.worker(config), await cluster.worker(config)
    made = await first.keys.create(KeySpec(), "admin")
    assert await reason(second.keyring, made.key) == ""
    info = await first.keys.revoke(made.info.id, "admin")
    assert info.revoked == cluster.clock.now
    assert await reason(first.keyring, made.key) == "revoked"

    async def closed() -> bool:
        return await reason(second.keyring, made.key) == "revoked"

    await eventually(closed)
    assert await reason(second.keyring, made.key[:-1] + "!") == "malformed"


async def test_a_revocation_arrives_without_the_store(
    cluster: Any, config: Config, eventually: Any
) -> None:
    first, deaf = await cluster.worker(config), await cluster.worker(config, deaf=True)
    made = await first.keys.create(KeySpec(), "admin")
    assert await reason(deaf.keyring, made.key) == ""
    await first.keys.revoke(made.info.id, "admin")

    async def closed() -> bool:
        return await reason(deaf.keyring, made.key) == "revoked"

    await eventually(closed)


async def test_known_keys_go_on_while_a_worker_catches_up(
    cluster: Any, config: Config, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "AT_ONCE", 30)
    worker = await cluster.worker(config)
    made = [await worker.keys.create(KeySpec(team="blue"), "admin") for _ in range(100)]
    tokens = [key.key for key in made] + [CONFIG_KEY]
    for token in tokens:
        await worker.keyring.authenticate(token)
    # By a worker whose messages do not come: only the counter tells that there were changes.
    revoked, gone = made[60], made[61]
    cluster.sql(f"UPDATE api_keys SET revoked = 1 WHERE id = '{revoked.info.id}'")
    cluster.sql(f"DELETE FROM api_keys WHERE id = '{gone.info.id}'")
    terms = "0, 'day', NULL, NULL, NULL, '[\"us\"]'"
    columns = "budget, window, requests_per_minute, tokens_per_minute, concurrency, labels"
    cluster.sql(f"INSERT INTO scope_terms (id, {columns}) VALUES ('team:blue', {terms})")
    cluster.sql("UPDATE change_counters SET version = version + 3 WHERE topic = 'keys'")
    async with asyncio.timeout(20):
        while True:
            # More of them at once than are looked up at once.
            found = await asyncio.gather(
                *(worker.keyring.authenticate(token) for token in tokens), return_exceptions=True
            )
            assert not [outcome for outcome in found if isinstance(outcome, AuthUnavailable)]
            if any(isinstance(outcome, AuthError) for outcome in found):
                break
            await asyncio.sleep(0)

    async def told() -> bool:
        return (await worker.keyring.authenticate(tokens[99])).labels == {"us"}

    await eventually(told)
    assert await reason(worker.keyring, revoked.key) == "revoked"
    assert await reason(worker.keyring, gone.key) == "invalid"
    assert (await worker.keyring.authenticate(tokens[0])).scopes[-1].id == "team:blue"
    assert await worker.ledger.balance("default", Scope("team:blue", Budget(0, "day"))) is not None


async def test_a_change_is_written_while_the_store_is_away(
    cluster: Any, config: Config, eventually: Any
) -> None:
    other, deaf = await cluster.worker(config), await cluster.worker(config, deaf=True)
    made = await deaf.keys.create(KeySpec(), "admin")
    assert await reason(other.keyring, made.key) == ""
    await deaf.keys.revoke(made.info.id, "admin")
    assert await reason(deaf.keyring, made.key) == "revoked"

    async def closed() -> bool:
        return await reason(other.keyring, made.key) == "revoked"

    await eventually(closed)


async def test_a_key_asked_for_too_early_opens_once_it_is_made(
    cluster: Any, config: Config, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await cluster.worker(config), await cluster.worker(config)
    key = format_key("abcdefghijkl", "q" * 43)
    assert await reason(second.keyring, key) == "invalid"
    monkeypatch.setattr("gateway.auth.admin.new_key", lambda _: key)
    await first.keys.create(KeySpec(), "admin")

    async def opens() -> bool:
        return await reason(second.keyring, key) == ""

    await eventually(opens)


async def test_without_the_database_known_keys_work_and_others_are_not_refused(
    cluster: Any, config: Config
) -> None:
    worker = await cluster.worker(config)
    known = await worker.keys.create(KeySpec(), "admin")
    unseen = await worker.keys.create(KeySpec(), "admin")
    assert await reason(worker.keyring, known.key) == ""
    cluster.break_database()
    assert await reason(worker.keyring, known.key) == ""
    assert await reason(worker.keyring, CONFIG_KEY) == ""
    with pytest.raises(AuthUnavailable):
        await worker.keyring.authenticate(unseen.key)
    with pytest.raises(AuthUnavailable):
        await worker.keyring.authenticate(format_key("neverexisted", "x" * 43))
    cluster.mend_database()
    assert await reason(worker.keyring, unseen.key) == ""


async def test_one_lookup_serves_all_who_wait_for_it(
    cluster: Any, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await cluster.worker(config)
    made = await worker.keys.create(KeySpec(), "admin")
    from gateway.auth import repository

    calls: list[str] = []
    original = repository.find_key

    def counted(connection: Any, key_id: str) -> Any:
        calls.append(key_id)
        return original(connection, key_id)

    monkeypatch.setattr(repository, "find_key", counted)
    found = await asyncio.gather(*(worker.keyring.authenticate(made.key) for _ in range(50)))
    assert {principal.key_id for principal in found} == {made.info.id}
    assert calls == [made.info.id]
    for _ in range(3):
        assert await reason(worker.keyring, format_key("unknownkey00", "x" * 43)) == "invalid"
    assert calls == [made.info.id, "unknownkey00"]


async def test_keys_of_the_configuration_are_known_from_the_start(
    cluster: Any, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await cluster.worker(config)
    monkeypatch.setattr(keyring, "LOOKUP_S", 0.0)
    assert (await worker.keyring.authenticate(CONFIG_KEY)).key_id == "configconfig"


async def test_a_known_key_does_not_fail_because_its_books_take_long(
    cluster: Any, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await cluster.worker(config)
    made = await worker.keys.create(KeySpec(terms=Terms(budget=7, window="day")), "admin")
    ever = asyncio.Event()

    async def provision(_: Principal) -> None:
        await ever.wait()

    monkeypatch.setattr(worker.keyring, "provision", provision)
    monkeypatch.setattr(keyring, "LOOKUP_S", 0.5)
    found = await asyncio.gather(*(worker.keyring.authenticate(made.key) for _ in range(9)))
    assert {principal.key_id for principal in found} == {made.info.id}
    ever.set()


async def test_keys_of_the_configuration_are_read_only(cluster: Any, config: Config) -> None:
    worker = await cluster.worker(config)
    with pytest.raises(KeyReadOnly):
        await worker.keys.revoke("configconfig", "admin")
    with pytest.raises(KeyReadOnly):
        await worker.keys.put_scope(ScopeInfo("org:acme", "database"), "admin")
    with pytest.raises(KeyNotFound):
        await worker.keys.revoke("unknownkey00", "admin")
    assert await reason(worker.keyring, CONFIG_KEY) == ""


async def test_the_list_holds_both_sources_in_order(cluster: Any, config: Config) -> None:
    worker = await cluster.worker(config)
    made = {(await worker.keys.create(KeySpec(), "admin")).info.id for _ in range(5)}
    expected = sorted(made | {"configconfig"})
    seen: list[str] = []
    while page := await worker.keys.page(seen[-1] if seen else "", 2):
        assert len(page) <= 2
        seen += [info.id for info in page]
    assert seen == expected


async def test_a_repeated_creation_makes_one_key(cluster: Any, config: Config) -> None:
    def once(user: str) -> Replay:
        return replay_of("once", KeySpec(user=user))

    first, second = await cluster.worker(config), await cluster.worker(config)
    made = await asyncio.gather(
        *(w.keys.create(KeySpec(user="ada"), "admin", once("ada")) for w in (first, second) * 3),
    )
    assert len({one.info.id for one in made}) == 1
    assert sum(one.key is not None for one in made) == 1
    assert cluster.sql("SELECT count(*) FROM api_keys") == [(1,)]
    with pytest.raises(ReplayConflict):
        await first.keys.create(KeySpec(user="bob"), "admin", once("bob"))


async def test_budgets_have_books_once_the_key_was_used(cluster: Any, config: Config) -> None:
    worker = await cluster.worker(config)
    for scope in (
        Scope("key:configconfig", Budget(1, "month")),
        Scope("org:acme", Budget(1, "month")),
    ):
        balance = await worker.ledger.balance("acme", scope)
        assert balance is not None
        assert (balance.spent, balance.held) == (0, 0)
    made = await worker.keys.create(
        KeySpec(org="new", terms=Terms(budget=7, window="day")), "admin"
    )
    principal = await worker.keyring.authenticate(made.key)
    (scope,) = principal.scopes
    assert scope == Scope(f"key:{made.info.id}", Budget(7, "day"))
    assert await worker.ledger.balance("new", scope) is not None


async def test_new_terms_of_a_team_reach_its_keys_everywhere(
    cluster: Any, config: Config, eventually: Any
) -> None:
    first, second = await cluster.worker(config), await cluster.worker(config)
    made = await first.keys.create(KeySpec(org="acme", team="blue"), "admin")
    assert (await second.keyring.authenticate(made.key)).labels == {"eu"}
    terms = Terms(budget=9, window="3600")
    await first.keys.put_scope(ScopeInfo("team:blue", "database", ("us",), terms), "admin")

    async def reached() -> bool:
        principal = await second.keyring.authenticate(made.key)
        return principal.labels == {"eu", "us"} and principal.scopes[0].id == "team:blue"

    await eventually(reached)
    scope = Scope("team:blue", Budget(9, "3600"))
    assert await second.ledger.balance("acme", scope) is not None


async def test_terms_that_cannot_be_read_close_their_keys_alone(
    cluster: Any, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """A row of an earlier version, or of another hand: nobody knows what may be spent."""
    writer = await cluster.worker(config)
    red = await writer.keys.create(KeySpec(org="acme", team="red"), "admin")
    blue = await writer.keys.create(KeySpec(org="acme", team="blue"), "admin")
    own = await writer.keys.create(KeySpec(org="acme", terms=Terms(budget=7)), "admin")
    terms = Terms(budget=9, window="day")
    await writer.keys.put_scope(ScopeInfo("team:red", "database", (), terms), "admin")
    cluster.sql("UPDATE scope_terms SET window = '000000000001000000000000'")
    cluster.sql(f"UPDATE api_keys SET window = 'week' WHERE id = '{own.info.id}'")

    worker = await cluster.worker(config)
    assert list(worker.keyring.unreadable) == ["team:red"]
    for made, id in ((red, "team:red"), (own, f"key:{own.info.id}")):
        for ask in (worker.keyring.authenticate(made.key), worker.keyring.principal(made.info.id)):
            with pytest.raises(TermsUnreadable, match=f"{id} cannot be read: .*window"):
                await ask
        assert id in caplog.text
    assert await reason(worker.keyring, red.key[:-1] + "x") == "invalid"
    assert (await worker.keyring.authenticate(blue.key)).team == "blue"

    await worker.keys.put_scope(ScopeInfo("team:red", "database", (), terms), "admin")
    assert not worker.keyring.unreadable
    principal = await worker.keyring.authenticate(red.key)
    assert principal.scopes[0] == Scope("team:red", Budget(9, "day"))


async def test_terms_that_become_unreadable_do_not_deafen_a_worker(
    cluster: Any, config: Config
) -> None:
    worker = await cluster.worker(config)
    red = await worker.keys.create(KeySpec(org="acme", team="red"), "admin")
    blue = await worker.keys.create(KeySpec(org="acme", team="blue"), "admin")
    for made in (red, blue):
        await worker.keyring.authenticate(made.key)
    await worker.keys.put_scope(ScopeInfo("team:red", "database", (), Terms(budget=9)), "admin")
    cluster.sql("UPDATE scope_terms SET window = 'week'")
    cluster.sql("UPDATE change_counters SET version = version + 1")
    await worker.keyring._watch.check()
    with pytest.raises(TermsUnreadable):
        await worker.keyring.authenticate(red.key)
    await worker.keys.revoke(blue.info.id, "admin")
    assert await reason(worker.keyring, blue.key) == "revoked"


async def test_what_a_key_may_not_hold(cluster: Any, config: Config) -> None:
    worker = await cluster.worker(config)
    with pytest.raises(Invalid) as caught:
        await worker.keys.create(KeySpec(labels=("x'; DROP TABLE api_keys; --",)), "admin")
    assert caught.value.field == "labels[0]"
    with pytest.raises(Invalid):
        await worker.keys.create(KeySpec(terms=Terms(budget=-1)), "admin")
    assert cluster.sql("SELECT count(*) FROM api_keys") == [(0,)]


async def test_every_write_is_in_the_log_and_no_secret_is(cluster: Any, config: Config) -> None:
    worker = await cluster.worker(config)
    made = await worker.keys.create(KeySpec(), "root")
    await worker.keys.revoke(made.info.id, "root")
    await worker.keys.revoke(made.info.id, "root")
    await worker.keys.put_scope(ScopeInfo("team:t", "database"), "root")
    rows = cluster.sql("SELECT actor, action, target, before, after FROM admin_log ORDER BY id")
    assert [row[:3] for row in rows] == [
        ("root", "key.create", made.info.id),
        ("root", "key.revoke", made.info.id),
        ("root", "scope.put", "team:t"),
    ]
    assert made.key[-43:] not in repr(rows)


async def test_an_explanation_may_name_a_key_without_its_secret(
    cluster: Any, config: Config
) -> None:
    worker = await cluster.worker(config)
    made = await worker.keys.create(KeySpec(user="ada"), "admin")
    found = await worker.keyring.principal(made.info.id)
    assert found is not None and found.user == "ada"
    await worker.keys.revoke(made.info.id, "admin")
    assert await worker.keyring.principal(made.info.id) is None
    assert await worker.keyring.principal("unknownkey00") is None


async def test_many_keys_that_no_worker_has_seen_open_at_once(cluster: Any, config: Config) -> None:
    first = await cluster.worker(config)
    made = [await first.keys.create(KeySpec(), "admin") for _ in range(3 * keyring.LOOKUPS)]
    second = await cluster.worker(config)
    found = await asyncio.gather(*(second.keyring.authenticate(key.key) for key in made))
    assert [principal.key_id for principal in found] == [key.info.id for key in made]


async def test_keys_that_wait_for_a_lookup_are_told_when_the_database_stands_still(
    cluster: Any, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await cluster.worker(config)
    made = await worker.keys.create(KeySpec(), "admin")
    monkeypatch.setattr(keyring, "LOOKUP_S", 0.2)
    released = threading.Event()
    standing = asyncio.create_task(worker.database.read(lambda _: released.wait(60)))
    keys = [format_key(f"unknown{number:05}", "x" * 43) for number in range(2 * keyring.LOOKUPS)]
    asked = (worker.keyring.authenticate(key) for key in keys)
    async with asyncio.timeout(30):
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in found} == {AuthUnavailable}
    released.set()
    assert await standing
    assert await reason(worker.keyring, made.key) == ""


async def test_a_flood_of_unknown_keys_is_shed(
    cluster: Any, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await cluster.worker(config)
    monkeypatch.setattr(keyring, "LOOKUPS_WAITING", 10)
    keys = [format_key(f"unknown{number:05}", "x" * 43) for number in range(keyring.LOOKUPS + 30)]
    asked = (worker.keyring.authenticate(key) for key in keys)
    found = await asyncio.gather(*asked, return_exceptions=True)
    kinds = [type(outcome) for outcome in found]
    assert (kinds.count(AuthUnavailable), kinds.count(AuthError)) == (20, keyring.LOOKUPS + 10)
