"""Every ordered pair of the mesh's servers: one invites, the other is invited."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import pytest
import pytest_asyncio
from client import User
from conftest import ROOM_VERSION, NewUser
from mesh import SERVERS, Container

#: How long a client may wait for its 200 when the inviter's server cannot be reached.
AT_ONCE = 5.0
#: A rejection reaches an inviter that is back within this many seconds.
BACK_WITHIN = 60.0

PAIRS = list(itertools.permutations(SERVERS, 2))


@dataclass
class Invited:
    """Alice has invited Bob, and Bob has seen it."""

    inviter: Container
    invitee: Container
    alice: User
    bob: User
    room: str


@pytest_asyncio.fixture(params=PAIRS, ids=[f"{a}-invites-{b}" for a, b in PAIRS])
async def invited(
    request: pytest.FixtureRequest, servers: dict[str, Container], new_user: NewUser
) -> Invited:
    inviter, invitee = (servers[name] for name in request.param)
    alice = await new_user(inviter, "alice")
    bob = await new_user(invitee, "bob")
    room = await alice.create_room(ROOM_VERSION)
    await alice.invite(room, bob.id)
    await bob.wait_for_invite(room)
    return Invited(inviter, invitee, alice, bob, room)


async def test_reject(invited: Invited) -> None:
    alice, bob, room = invited.alice, invited.bob, invited.room
    await bob.leave(room)
    await bob.wait_for_leave(room)
    await alice.wait_for_membership(room, bob.id, "leave")

    await alice.invite(room, bob.id)
    await bob.wait_for_invite(room)


async def test_join_talk_leave(invited: Invited) -> None:
    alice, bob, room = invited.alice, invited.bob, invited.room
    await bob.join(room)
    await alice.wait_for_membership(room, bob.id, "join")

    await bob.wait_for_event(await alice.say(room, "hello bob"))
    await alice.wait_for_event(await bob.say(room, "hello alice"))

    await bob.leave(room)
    await bob.wait_for_leave(room)
    await alice.wait_for_membership(room, bob.id, "leave")


async def test_reject_while_the_inviter_is_paused(invited: Invited) -> None:
    alice, bob, room = invited.alice, invited.bob, invited.room
    await invited.inviter.pause()
    started = time.monotonic()
    await bob.leave(room)
    if invited.invitee.answers_at_once:
        assert time.monotonic() - started < AT_ONCE
    await bob.wait_for_leave(room)
    assert not bob.told_to_log_out

    await invited.inviter.unpause()
    if invited.invitee.keeps_departures:
        await alice.wait_for_membership(room, bob.id, "leave", BACK_WITHIN)


async def test_reject_while_the_invitee_is_cut_off(invited: Invited) -> None:
    """A partition: the invitee's clients reach it, and it reaches nobody."""
    alice, bob, room = invited.alice, invited.bob, invited.room
    await invited.invitee.disconnect()
    started = time.monotonic()
    try:
        await bob.leave(room)
        if invited.invitee.answers_at_once:
            assert time.monotonic() - started < AT_ONCE
        await bob.wait_for_leave(room)
    finally:
        await invited.invitee.connect()
    if invited.invitee.keeps_departures:
        await alice.wait_for_membership(room, bob.id, "leave", BACK_WITHIN)
