"""Rejecting the invite of a server that misbehaves in every way we could think of."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator

import events
import misbehaviour
import pytest
import pytest_asyncio
from client import Refused, User
from hostile import Hostile, Room
from misbehaviour import ANSWERS, TEMPLATES
from servers import Server
from stage import SELFTEST, UNDER_TEST, Stage

ROOM_VERSIONS = ("10", "12")
#: How long a client may wait for its 200, whatever the peer does.
AT_ONCE = 5.0
#: A peer that behaves again has the departure within this many seconds.
BACK_WITHIN = 60.0


#: Mutations that Synapse takes over into what it signs; the self-test wants them noticed.
SYNAPSE_SIGNS = {
    "auth-events-duplicates",
    "auth-events-thousands",
    "content-extra",
    "content-float",
    "depth-2-53",
    "depth-negative",
    "extra-keys",
    "origin-of-another",
    "prev-events-duplicates",
    "prev-events-thousands",
    "signatures-and-hashes",
    "time-of-another",
}


def synapse_fails(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.xfail(SELFTEST, reason=f"Synapse: {reason}", strict=True)


def template_cases(*synapse_signs_too: str) -> list:
    """Every mutation in every version."""
    signs = SYNAPSE_SIGNS | set(synapse_signs_too)
    cases = []
    for mutation, version in itertools.product(TEMPLATES, ROOM_VERSIONS):
        taken_over = mutation in signs or (mutation, version) == ("version-6", "12")
        marks = [synapse_fails("it signs what it is handed")] if taken_over else []
        cases.append(pytest.param(mutation, version, marks=marks, id=f"{mutation}-{version}"))
    return cases


@pytest_asyncio.fixture(scope="module")
async def victim(stage: Stage) -> Server:
    return await stage.add(UNDER_TEST)


@pytest_asyncio.fixture
async def hostile(stage: Stage) -> AsyncIterator[Hostile]:
    """A server of its own for each test, so that nobody backs off from it."""
    hostile = Hostile(stage.authority, stage.reserve())
    await hostile.start()
    try:
        yield hostile
    finally:
        await hostile.stop()


@pytest_asyncio.fixture
async def bob(stage: Stage, victim: Server) -> User:
    return await stage.user(victim, "bob")


async def invite(hostile: Hostile, bob: User, version: str) -> Room:
    room = await hostile.invite(bob.server, bob.id, version)
    await bob.wait_for_invite(room.id)
    return room


async def reject(hostile: Hostile, bob: User, room: Room) -> None:
    """Bob is out at once and nothing was signed but his leave."""
    started = time.monotonic()
    await bob.leave(room.id)
    if bob.server.answers_at_once:
        assert time.monotonic() - started < AT_ONCE
    await bob.wait_for_leave(room.id)
    assert not bob.told_to_log_out
    assert await hostile.objections(bob.server, room, "leave") == []


@pytest.mark.parametrize("version", events.ROOM_VERSIONS)
async def test_honest_peer_gets_the_leave(
    hostile: Hostile, bob: User, version: str
) -> None:
    room = await invite(hostile, bob, version)
    await reject(hostile, bob, room)
    (sent,) = hostile.called("send_leave_v2")
    assert sent.body["content"]["membership"] == "leave"
    assert not hostile.called("make_join", "send_join_v1", "send_join_v2")


@pytest.mark.parametrize("version", events.ROOM_VERSIONS)
async def test_honest_peer_gets_the_join(hostile: Hostile, bob: User, version: str) -> None:
    room = await invite(hostile, bob, version)
    await bob.join(room.id)
    await bob.wait_for(lambda view: room.id in view.joined, "the room joined")
    assert await hostile.objections(bob.server, room, "join") == []


@pytest.mark.parametrize(("mutation", "version"), template_cases("content-authoriser"))
async def test_reject_with_mutated_template(
    hostile: Hostile, bob: User, mutation: str, version: str
) -> None:
    hostile.script["make_leave"] = misbehaviour.template(TEMPLATES[mutation])
    room = await invite(hostile, bob, version)
    await reject(hostile, bob, room)
    assert hostile.called("make_leave")


async def test_reject_with_join_template(hostile: Hostile, bob: User) -> None:
    """The template of a join must not put the user into the room."""
    mutation = misbehaviour.content_with(membership="join")
    hostile.script["make_leave"] = misbehaviour.template(mutation)
    room = await invite(hostile, bob, "12")
    await reject(hostile, bob, room)


@pytest.mark.parametrize(("mutation", "version"), template_cases())
async def test_join_with_mutated_template(
    hostile: Hostile, bob: User, mutation: str, version: str
) -> None:
    """A join may fail, but signs nothing else and logs nobody out."""
    hostile.script["make_join"] = misbehaviour.template(TEMPLATES[mutation])
    room = await invite(hostile, bob, version)
    try:
        await bob.join(room.id)
    except Refused:
        assert not bob.told_to_log_out
    assert hostile.called("make_join")
    assert await hostile.objections(bob.server, room, "join") == []


@pytest.mark.parametrize("unknown", ("404-unrecognized", "404-html"))
async def test_falls_back_to_v1(hostile: Hostile, bob: User, unknown: str) -> None:
    hostile.script["send_leave_v2"] = ANSWERS[unknown]
    room = await invite(hostile, bob, "11")
    await reject(hostile, bob, room)
    assert hostile.called("send_leave_v1")


@pytest.mark.parametrize("answer", ("401-unknown-token", "500", "hang", "hang-up", "html-with-200"))
async def test_departure_reaches_peer_that_recovers(
    hostile: Hostile, bob: User, answer: str
) -> None:
    """The departure is kept until someone takes it."""
    hostile.script["make_leave"] = ANSWERS[answer]
    room = await invite(hostile, bob, "11")
    await reject(hostile, bob, room)
    if not bob.server.keeps_departures:
        pytest.skip(f"{bob.server.kind} does not retry a rejection; the rest was checked")
    hostile.script.clear()
    await hostile.wait_for_call("send_leave_v2", BACK_WITHIN)
    assert await hostile.objections(bob.server, room, "leave") == []


@pytest.mark.parametrize(
    "answer",
    (
        pytest.param("401-unknown-token", marks=synapse_fails("it passes soft_logout on")),
        "401-unauthorized",
    ),
)
@pytest.mark.parametrize("endpoint", ("make_join", "send_join_v2"))
async def test_failed_join_logs_nobody_out(
    hostile: Hostile, bob: User, endpoint: str, answer: str
) -> None:
    hostile.script[endpoint] = ANSWERS[answer]
    room = await invite(hostile, bob, "11")
    with pytest.raises(Refused):
        await bob.join(room.id)
    assert not bob.told_to_log_out
