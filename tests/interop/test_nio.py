"""Two servers of ours, driven by a real client library through the life of an invite."""

from __future__ import annotations

import pytest
import pytest_asyncio
from client import User
from servers import Server
from stage import UNDER_TEST, Stage, fresh_localpart

ROOM_VERSIONS = ("1", "2", "6", "10", "11", "12")


@pytest_asyncio.fixture(scope="module")
async def pair(stage: Stage) -> tuple[Server, Server]:
    return await stage.add(UNDER_TEST), await stage.add(UNDER_TEST)


async def sign_up(stage: Stage, server: Server, name: str) -> User:
    user = await User.sign_up(server, fresh_localpart(name))
    stage.keep(user)
    return user


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_life_of_an_invite(
    stage: Stage, pair: tuple[Server, Server], version: str
) -> None:
    alice = await sign_up(stage, pair[0], "alice")
    bob = await sign_up(stage, pair[1], "bob")
    room = await alice.create_room(version)

    for _ in range(2):
        await alice.invite(room, bob.id)
        await bob.wait_for_invite(room)
        await bob.leave(room)
        await bob.wait_for_leave(room)
        await alice.wait_for_membership(room, bob.id, "leave")

    await alice.invite(room, bob.id)
    await bob.wait_for_invite(room)
    await bob.join(room)
    await bob.wait_for(lambda view: room in view.joined, "the room joined")
    await alice.wait_for_membership(room, bob.id, "join")

    await bob.wait_for_event(await alice.say(room, "hello bob"))
    await alice.wait_for_event(await bob.say(room, "hello alice"))

    await bob.leave(room)
    await bob.wait_for_leave(room)
    await alice.wait_for_membership(room, bob.id, "leave")
    assert not alice.told_to_log_out and not bob.told_to_log_out


async def test_every_device_sees_the_rejection(
    stage: Stage, pair: tuple[Server, Server]
) -> None:
    alice = await sign_up(stage, pair[0], "alice")
    bob = await sign_up(stage, pair[1], "bob")
    room = await alice.create_room("11")
    await alice.invite(room, bob.id)
    await bob.wait_for_invite(room)
    other_device = await bob.login_again()
    stage.keep(other_device)
    assert room in other_device.view.invited

    await bob.leave(room)

    await other_device.wait_for_leave(room)


async def test_rejection_among_several_invited(
    stage: Stage, pair: tuple[Server, Server]
) -> None:
    alice = await sign_up(stage, pair[0], "alice")
    bob = await sign_up(stage, pair[1], "bob")
    carol = await sign_up(stage, pair[1], "carol")
    room = await alice.create_room("12")
    for invitee in (bob, carol):
        await alice.invite(room, invitee.id)
        await invitee.wait_for_invite(room)

    await bob.leave(room)

    await bob.wait_for_leave(room)
    await alice.wait_for_membership(room, bob.id, "leave")
    assert await alice.membership(room, carol.id) == "invite"
    await carol.sync()
    assert room in carol.view.invited
