"""Our server and Synapse, each as the inviter and as the invitee."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from pair import Invited, Pair, invited, pair  # noqa: F401  (a fixture)
from servers import Synapse
from stage import Stage

ROOM_VERSIONS = ("1", "2", "6", "10", "11", "12")
#: Of the tests that take a server down.
SOME_VERSIONS = ("6", "10", "11", "12")
#: Rooms that are created with an invite, which is turned down as soon as it is seen.
RACES = int(os.environ.get("EXEUNT_RACES", "10"))
#: How long a client may wait for its 200 when the inviter's server cannot be reached.
AT_ONCE = 5.0
#: A rejection reaches an inviter that is back within this many seconds.
BACK_WITHIN = 60.0

async def reject_while_unreachable(case: Invited) -> None:
    """Bob rejects; he is answered at once where that is promised, and out in any case."""
    started = time.monotonic()
    await case.bob.leave(case.room)
    if case.bob.server.answers_at_once:
        assert time.monotonic() - started < AT_ONCE
    await case.bob.wait_for_leave(case.room)
    assert not case.bob.told_to_log_out


async def departure_arrives(case: Invited) -> None:
    """The inviter learns of it, if the invitee's server keeps what it could not deliver."""
    if not case.bob.server.keeps_departures:
        return
    await case.alice.wait_for_membership(case.room, case.bob.id, "leave", BACK_WITHIN)


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_reject(stage: Stage, pair: Pair, version: str) -> None:
    case = await invited(stage, pair, version)
    for _ in range(2):
        await case.bob.leave(case.room)
        await case.bob.wait_for_leave(case.room)
        await case.alice.wait_for_membership(case.room, case.bob.id, "leave")
        await case.again()


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_join_talk_leave(stage: Stage, pair: Pair, version: str) -> None:
    case = await invited(stage, pair, version)
    await case.bob.join(case.room)
    await case.alice.wait_for_membership(case.room, case.bob.id, "join")

    for n in range(3):
        await case.bob.wait_for_event(await case.alice.say(case.room, f"hello bob {n}"))
        await case.alice.wait_for_event(await case.bob.say(case.room, f"hello alice {n}"))

    await case.bob.leave(case.room)
    await case.bob.wait_for_leave(case.room)
    await case.alice.wait_for_membership(case.room, case.bob.id, "leave")


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_kick_of_invited_user(stage: Stage, pair: Pair, version: str) -> None:
    case = await invited(stage, pair, version)
    await case.alice.kick(case.room, case.bob.id)
    await case.bob.wait_for(lambda view: case.room not in view.invited, "the invite gone")


async def test_ban_of_joined_user(stage: Stage, pair: Pair) -> None:
    case = await invited(stage, pair)
    await case.bob.join(case.room)
    await case.alice.wait_for_membership(case.room, case.bob.id, "join")
    await case.alice.ban(case.room, case.bob.id)
    await case.bob.wait_for_leave(case.room)


async def test_reject_reaches_third_server(stage: Stage, pair: Pair) -> None:
    """A resident that takes the leave passes it on to everyone in the room."""
    third = await stage.add(Synapse.kind)
    case = await invited(stage, pair)
    carol = await stage.user(third, "carol")
    await case.alice.invite(case.room, carol.id)
    await carol.wait_for_invite(case.room)
    await carol.join(case.room)
    await carol.wait_for_membership(case.room, case.bob.id, "invite")

    await case.bob.leave(case.room)

    await carol.wait_for_membership(case.room, case.bob.id, "leave")


async def test_reject_races_the_creation_of_the_room(stage: Stage, pair: Pair) -> None:
    """A bot turns down each invite as soon as it sees it, while its room is still being made."""
    alice = await stage.user(pair.inviter, "alice")
    bob = await stage.user(pair.invitee, "bob")
    if not bob.server.keeps_departures:
        pytest.skip("Synapse loses rejections in that race")
    seen: set[str] = set()

    async def turn_down() -> None:
        while len(seen) < RACES:
            new = bob.view.invited - seen
            seen.update(new)
            await asyncio.gather(*(bob.leave(room) for room in new))
            await bob.sync(1.0)

    async def create() -> list[str]:
        body = {"preset": "private_chat", "invite": [bob.id]}
        made = [await alice.ask("POST", "/createRoom", body) for _ in range(RACES)]
        return [room["room_id"] for room in made]

    rooms, _ = await asyncio.gather(create(), turn_down())
    for room in rooms:
        await alice.wait_for_membership(room, bob.id, "leave", BACK_WITHIN)


@pytest.mark.parametrize("version", SOME_VERSIONS)
async def test_reject_while_inviter_is_stopped(stage: Stage, pair: Pair, version: str) -> None:
    case = await invited(stage, pair, version)
    await pair.inviter.stop()
    await reject_while_unreachable(case)
    await pair.inviter.start()
    await departure_arrives(case)


@pytest.mark.parametrize("version", SOME_VERSIONS)
async def test_reject_survives_kill_of_invitee(stage: Stage, pair: Pair, version: str) -> None:
    """The departure is durable once the client has its 200."""
    case = await invited(stage, pair, version)
    await pair.inviter.stop()
    await reject_while_unreachable(case)
    await pair.invitee.kill9()
    await asyncio.gather(pair.invitee.start(), pair.inviter.start())
    device = await case.bob.login_again()
    stage.keep(device)
    assert case.room not in device.view.invited
    await departure_arrives(case)


@pytest.mark.parametrize("fault", ("cut", "black_hole", "reset"))
async def test_reject_while_inviter_is_unreachable(
    stage: Stage, pair: Pair, fault: str
) -> None:
    """One direction only: the invitee cannot reach the inviter."""
    case = await invited(stage, pair)
    await getattr(pair.inviter.link, fault)()
    await reject_while_unreachable(case)
    await pair.inviter.link.restore()
    await departure_arrives(case)


async def test_reject_while_inviter_is_frozen(stage: Stage, pair: Pair) -> None:
    case = await invited(stage, pair)
    pair.inviter.pause()
    await reject_while_unreachable(case)
    pair.inviter.resume()
    await departure_arrives(case)


async def test_reject_over_slow_link(stage: Stage, pair: Pair) -> None:
    case = await invited(stage, pair)
    pair.inviter.link.delay(0.3)
    await case.bob.leave(case.room)
    await case.bob.wait_for_leave(case.room)
    await case.alice.wait_for_membership(case.room, case.bob.id, "leave", BACK_WITHIN)


async def test_messages_catch_up_after_cut(stage: Stage, pair: Pair) -> None:
    """What was said while the link was down arrives when it is back."""
    case = await invited(stage, pair)
    await case.bob.join(case.room)
    await case.alice.wait_for_membership(case.room, case.bob.id, "join")
    await pair.invitee.link.cut()
    missed = [await case.alice.say(case.room, f"into the void {n}") for n in range(3)]
    await pair.invitee.link.restore()
    said = await case.alice.say(case.room, "are you there?")
    for event_id in (*missed, said):
        await case.bob.wait_for(
            lambda view, wanted=event_id: wanted in view.events, "the message", BACK_WITHIN
        )
