"""Deleting a room that has pending invites and knocks of the other side's users (S#18505), and
devices that are away meanwhile (S#18599); by us beside Synapse, and by Synapse beside us."""

from __future__ import annotations

from urllib.parse import quote

import pytest
import pytest_asyncio
from client import Refused, User, eventually
from servers import Exeunt, Synapse
from stage import SELFTEST, Stage

ROOM_VERSIONS = ("6", "10", "11", "12")
KNOCKING = ("10", "11", "12")
#: What is queued is delivered within this many seconds.
DELIVERED_WITHIN = 60.0

pytestmark = pytest.mark.skipif(SELFTEST, reason="it takes both servers")


@pytest_asyncio.fixture(scope="module")
async def ours(stage: Stage) -> Exeunt:
    return await stage.add("exeunt")


@pytest_asyncio.fixture(scope="module")
async def theirs(stage: Stage) -> Synapse:
    return await stage.add("synapse")


async def departures_end(ours: Exeunt) -> None:
    async def none_waits() -> bool:
        return "no departure is waiting" in await ours.run("departures")

    await eventually(none_waits, "every departure to end", DELIVERED_WITHIN)


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_we_delete(stage: Stage, ours: Exeunt, theirs: Synapse, version: str) -> None:
    """Nobody is left with a ghost: the invited, members of both servers, devices that are away."""
    alice, amy = await stage.user(ours, "alice"), await stage.user(ours, "amy")
    away = await amy.login_again()
    stage.keep(away)
    bob, carl = await stage.user(theirs, "bob"), await stage.user(theirs, "carl")
    room = await alice.create_room(version)
    for user in (amy, carl):
        await alice.invite(room, user.id)
        await user.wait_for_invite(room)
        await user.join(room)
    await away.wait_for(lambda view: room in view.joined, "the room joined")
    # Synapse knows nothing of an expulsion that comes before it has the room.
    await carl.wait_for_membership(room, alice.id, "join")
    await alice.invite(room, bob.id)
    await bob.wait_for_invite(room)

    said = await ours.run("room", "delete", room, "--reason", "we are done", "--deadline", "30s")
    assert f"the invite or knock of {bob.id} was ended" in said
    assert "has yet to take" not in said
    await bob.wait_for_leave(room)
    await carl.wait_for_membership(room, alice.id, "leave")
    assert await carl.membership(room, bob.id) == "leave"
    # Amy's other device hears of it, though the room is gone.
    await away.wait_for_leave(room)
    # The room goes on without us; who is in it may ask us in again.
    assert await carl.say(room, "is anybody there?")


@pytest.mark.parametrize("version", KNOCKING)
async def test_we_delete_with_a_knock(
    stage: Stage, ours: Exeunt, theirs: Synapse, version: str
) -> None:
    """Synapse does not tell its user that the knock was declined, but another of its users who is
    in the room sees it."""
    alice = await stage.user(ours, "alice")
    bob, carl = await stage.user(theirs, "bob"), await stage.user(theirs, "carl")
    room = await alice.create_room_with(version, {"join_rule": "knock"})
    await alice.invite(room, carl.id)
    await carl.wait_for_invite(room)
    await carl.join(room)
    await carl.wait_for_membership(room, alice.id, "join")
    dora = await stage.user(theirs, "dora")
    for user in (bob, dora):
        await user.knock(room, ours.name, "let me in")
        await alice.wait_for_membership(room, user.id, "knock")
    said = await ours.run("room", "delete", room, "--deadline", "30s")
    for user in (bob, dora):
        assert f"the invite or knock of {user.id} was ended" in said
        await carl.wait_for_membership(room, user.id, "leave")


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_synapse_deletes(stage: Stage, ours: Exeunt, theirs: Synapse, version: str) -> None:
    """Synapse tells the invited nothing. Ours gets out all the same, with nothing left behind, and
    can be invited to another room."""
    alice = await stage.user(theirs, "alice", admin=True)
    bob = await stage.user(ours, "bob")
    room = await alice.create_room(version)
    await alice.invite(room, bob.id)
    await bob.wait_for_invite(room)
    invite = f"{bob.id}: invite to {room} by {alice.id}"
    assert f"{invite}: stands\n" in await ours.run("invites", "check")
    await delete_by_synapse(alice, room)
    assert f"{invite}: the room is gone\n" in await ours.run("invites", "check")
    await bob.leave(room)
    await bob.wait_for_leave(room)
    await departures_end(ours)
    another = await alice.create_room(version)
    await alice.invite(another, bob.id)
    await bob.wait_for_invite(another)
    await bob.join(another)


@pytest.mark.parametrize("version", KNOCKING)
async def test_synapse_deletes_with_a_knock(
    stage: Stage, ours: Exeunt, theirs: Synapse, version: str
) -> None:
    alice = await stage.user(theirs, "alice", admin=True)
    bob = await stage.user(ours, "bob")
    room = await alice.create_room_with(version, {"join_rule": "knock"})
    await bob.knock(room, theirs.name, "let me in")
    await alice.wait_for_membership(room, bob.id, "knock")
    await delete_by_synapse(alice, room)
    await bob.leave(room)
    await bob.wait_for_leave(room)
    await departures_end(ours)


async def delete_by_synapse(admin: User, room: str) -> None:
    """Deletes a room by Synapse's admin API, and waits until it is gone."""
    path = f"/_synapse/admin/v2/rooms/{quote(room, safe='')}"
    await admin.ask("DELETE", path, {"purge": True})

    async def is_done() -> bool:
        try:
            answer = await admin.ask("GET", f"{path}/delete_status")
        except Refused as refused:
            # It has yet to take the task up.
            assert refused.status == 404
            return False
        return all(one["status"] == "complete" for one in answer["results"])

    await eventually(is_done, "Synapse to delete the room", DELIVERED_WITHIN)
