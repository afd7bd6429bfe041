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


async def test_a_chat(stage: Stage, pair: tuple[Server, Server]) -> None:
    """Edits, reactions, threads, receipts and typing; who logs in again sees the same."""
    alice = await sign_up(stage, pair[0], "alice")
    bob = await sign_up(stage, pair[1], "bob")
    room = await alice.create_room("12")
    await alice.invite(room, bob.id)
    await bob.wait_for_invite(room)
    await bob.join(room)

    hello = await alice.say(room, "helo bob")
    await bob.wait_for_event(hello)
    edited = {"msgtype": "m.text", "body": "hello bob"}
    relation = {"rel_type": "m.replace", "event_id": hello}
    edit = await alice.say(
        room, "* hello bob", **{"m.new_content": edited, "m.relates_to": relation}
    )
    await bob.wait_for_event(edit)
    bundled = (await bob.event(room, hello))["unsigned"]["m.relations"]["m.replace"]
    assert bundled["event_id"] == edit

    annotation = {"rel_type": "m.annotation", "event_id": hello, "key": "👋"}
    reaction = await bob.send(room, "m.reaction", {"m.relates_to": annotation})
    await alice.wait_for_event(reaction)
    thread = {"rel_type": "m.thread", "event_id": hello}
    reply = await bob.say(room, "in a thread", **{"m.relates_to": thread})
    await alice.wait_for_event(reply)
    bundled = (await alice.event(room, hello))["unsigned"]["m.relations"]["m.thread"]
    assert (bundled["count"], bundled["latest_event"]["event_id"]) == (1, reply)

    last = await alice.say(room, "read this")
    await bob.wait_for_event(last)
    await bob.read_up_to(room, last)
    await alice.wait_for(lambda view: view.read.get((room, bob.id)) == last, "the receipt")
    for types in (True, False):
        await bob.type(room, types)
        expected = [bob.id] if types else []
        await alice.wait_for(lambda view: view.typing.get(room) == expected, f"{expected} type")

    again = await bob.login_again()
    stage.keep(again)
    assert room in again.view.joined
    for event in (hello, edit, reaction, reply, last):
        assert event in again.view.events
    assert again.view.read[room, bob.id] == last


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
