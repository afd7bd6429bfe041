"""Every way in and out of a room, between our server and Synapse, in both directions.

In each case Alice has the room and Bob, of the other server, is not in it.
"""

from __future__ import annotations

import pytest
from client import Refused, User, eventually
from pair import Invited, Pair, invited, pair  # noqa: F401  (a fixture)
from stage import Stage

ROOM_VERSIONS = ("6", "10", "11", "12")
KNOCKING = ("10", "11", "12")
RESTRICTED = ("10", "11", "12")


async def knocked(stage: Stage, pair: Pair, version: str, rule: str = "knock") -> Invited:
    """Bob has knocked, and Alice's server knows."""
    alice = await stage.user(pair.inviter, "alice")
    bob = await stage.user(pair.invitee, "bob")
    case = Invited(alice, bob, await alice.create_room_with(version, {"join_rule": rule}))
    await knock_again(case)
    return case


async def knock_again(case: Invited) -> None:
    await case.bob.knock(case.room, case.alice.server.name, "let me in")
    await case.alice.wait_for_membership(case.room, case.bob.id, "knock")


async def is_knocking(bob: User, room: str) -> bool:
    answer = await bob.ask("GET", "/sync")
    return room in answer.get("rooms", {}).get("knock", {})


@pytest.mark.parametrize("version", KNOCKING)
async def test_knock_and_invite(stage: Stage, pair: Pair, version: str) -> None:
    case = await knocked(stage, pair, version)
    # Synapse leaves knocks over federation out of a full sync.
    if case.bob.server.keeps_departures:
        assert await is_knocking(case.bob, case.room)
    await case.again()
    await case.bob.join(case.room)
    await case.alice.wait_for_membership(case.room, case.bob.id, "join")


@pytest.mark.parametrize("version", KNOCKING)
async def test_knock_and_retract(stage: Stage, pair: Pair, version: str) -> None:
    """Bob takes it back. Synapse tells nobody; we tell the server that we knocked at."""
    case = await knocked(stage, pair, version)
    await case.bob.leave(case.room)
    await case.bob.wait_for_leave(case.room)
    assert not await is_knocking(case.bob, case.room)
    if case.bob.server.keeps_departures:
        await case.alice.wait_for_membership(case.room, case.bob.id, "leave")
        await knock_again(case)


@pytest.mark.parametrize("version", KNOCKING)
async def test_retract_while_the_room_is_away(stage: Stage, pair: Pair, version: str) -> None:
    case = await knocked(stage, pair, version)
    if not case.bob.server.keeps_departures:
        pytest.skip("Synapse retracts knocks locally only")
    await pair.inviter.stop()
    await case.bob.leave(case.room)
    await case.bob.wait_for_leave(case.room)
    await pair.inviter.start()
    await case.alice.wait_for_membership(case.room, case.bob.id, "leave", 60.0)


@pytest.mark.parametrize("version", KNOCKING)
async def test_knock_and_decline(stage: Stage, pair: Pair, version: str) -> None:
    """We tell the knocker's server and hear it; Synapse does neither. Bob may knock again."""
    case = await knocked(stage, pair, version)
    await case.alice.kick(case.room, case.bob.id)
    await case.alice.wait_for_membership(case.room, case.bob.id, "leave")
    await knock_again(case)


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_withdraw_by_ban(stage: Stage, pair: Pair, version: str) -> None:
    """Row RS7: only we send it; the room is closed to Bob whoever does."""
    case = await invited(stage, pair, version)
    await case.alice.ban(case.room, case.bob.id)
    if pair.inviter.keeps_departures and pair.invitee.keeps_departures:
        await case.bob.wait_for_leave(case.room)
    with pytest.raises(Refused):
        await case.bob.join(case.room)


@pytest.mark.parametrize("version", RESTRICTED)
@pytest.mark.parametrize("rule", ("restricted", "knock_restricted"))
async def test_restricted_join(stage: Stage, pair: Pair, version: str, rule: str) -> None:
    alice = await stage.user(pair.inviter, "alice")
    bob = await stage.user(pair.invitee, "bob")
    via = alice.server.name
    door = await alice.create_room(version, public=True)
    allow = [{"type": "m.room_membership", "room_id": door, "via": [via]}]
    room = await alice.create_room_with(version, {"join_rule": rule, "allow": allow})
    with pytest.raises(Refused) as refused:
        await bob.join_via(room, via)
    assert refused.value.status in (403, 400), refused.value
    assert not bob.told_to_log_out

    await bob.join_via(door, via)
    await bob.join_via(room, via)
    await alice.wait_for_membership(room, bob.id, "join")
    await bob.wait_for_event(await alice.say(room, "you made it"))


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_kick_unban_and_rejoin(stage: Stage, pair: Pair, version: str) -> None:
    alice = await stage.user(pair.inviter, "alice")
    bob = await stage.user(pair.invitee, "bob")
    via = alice.server.name
    room = await alice.create_room(version, public=True)
    await bob.join_via(room, via)
    # Synapse never gets over a kick that comes before it has the whole state.
    await bob.wait_for(lambda view: room in view.joined, "the room")
    await alice.wait_for_membership(room, bob.id, "join")

    await alice.kick(room, bob.id)
    await bob.wait_for_leave(room)
    await bob.join_via(room, via)
    await bob.wait_for(lambda view: room in view.joined, "the room again")
    await alice.wait_for_membership(room, bob.id, "join")

    await alice.ban(room, bob.id)
    await bob.wait_for_leave(room)
    with pytest.raises(Refused):
        await bob.join_via(room, via)
    await alice.unban(room, bob.id)
    await alice.wait_for_membership(room, bob.id, "leave")
    await bob.join_via(room, via)
    await alice.wait_for_membership(room, bob.id, "join")
    await bob.wait_for_event(await alice.say(room, "welcome back"))


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_last_member_leaves_and_is_invited_again(
    stage: Stage, pair: Pair, version: str
) -> None:
    """What Bob's server has kept of the room is no ground to stand on."""
    case = await invited(stage, pair, version)
    await case.bob.join(case.room)
    await case.alice.wait_for_membership(case.room, case.bob.id, "join")
    await case.bob.leave(case.room)
    await case.alice.wait_for_membership(case.room, case.bob.id, "leave")
    missed = await case.alice.say(case.room, "while you were out")

    await case.again()
    await case.bob.leave(case.room)
    await case.alice.wait_for_membership(case.room, case.bob.id, "leave")
    await case.again()
    await case.bob.join(case.room)
    await case.alice.wait_for_membership(case.room, case.bob.id, "join")
    await case.bob.wait_for_event(await case.alice.say(case.room, "back again"))
    assert missed


async def members_differ(one: User, other: User, room: str) -> str:
    """What two servers say of the room's memberships, where they do not say the same."""

    async def members(user: User) -> dict[str, str]:
        chunk = (await user.ask("GET", f"/rooms/{room}/members"))["chunk"]
        return {event["state_key"]: event["content"]["membership"] for event in chunk}

    first, second = await members(one), await members(other)
    return "" if first == second else f"{first} != {second}"


async def arrive(user: User, room: str, via: str) -> None:
    """Joins, and waits for the room in `/sync`: Synapse never gets over what removes a user before
    it has the whole state."""
    await user.join_via(room, via)
    await user.wait_for(lambda view: room in view.joined, "the room")


async def test_servers_agree_in_the_end(stage: Stage, pair: Pair) -> None:
    """A good deal of coming and going, and both have the same members."""
    alice = await stage.user(pair.inviter, "alice")
    via = alice.server.name
    room = await alice.create_room("11", public=True)
    others = [await stage.user(server, "guest") for server in (pair.inviter, pair.invitee) * 2]
    for user in others:
        await arrive(user, room, via)
    await others[1].leave(room)
    await alice.kick(room, others[0].id)
    await alice.ban(room, others[3].id)
    for user in (others[0], others[1], others[3]):
        await user.wait_for_leave(room)
    await alice.unban(room, others[3].id)
    await arrive(others[1], room, via)
    await arrive(others[3], room, via)
    await others[3].wait_for_event(await alice.say(room, "settled"))

    async def agree() -> bool:
        return await members_differ(alice, others[3], room) == ""

    await eventually(agree, "the same members on both servers")
