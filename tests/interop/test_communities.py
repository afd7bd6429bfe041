"""A community on our server and on Synapse, as a member of the other one finds it.

In each case Alice has the space and its rooms, and Bob, of the other server, looks for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from client import Refused, User, eventually
from pair import Pair, pair  # noqa: F401  (a fixture)
from stage import Stage

VERSIONS = ("10", "11", "12")


@dataclass
class Community:
    """A published space that holds a public room and one for the space's members."""

    alice: User
    bob: User
    space: str
    hall: str
    club: str
    alias: str


async def create(user: User, **body: Any) -> str:
    return (await user.ask("POST", "/createRoom", body))["room_id"]


async def community(stage: Stage, pair: Pair, version: str) -> Community:
    alice = await stage.user(pair.inviter, "alice")
    bob = await stage.user(pair.invitee, "bob")
    space = await create(
        alice,
        room_version=version,
        preset="public_chat",
        visibility="public",
        name=f"Tea lovers of {alice.localpart}",
        room_alias_name=f"tea-{alice.localpart}-茶",
        creation_content={"type": "m.space"},
    )
    hall = await create(alice, room_version=version, preset="public_chat", name="Hall")
    allow = [{"type": "m.room_membership", "room_id": space}]
    rule = {"join_rule": "restricted", "allow": allow}
    club = await create(
        alice,
        room_version=version,
        preset="private_chat",
        name="Club",
        initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": rule}],
    )
    secret = await create(alice, room_version=version, preset="private_chat", name="Secret")
    for order, child in enumerate((hall, club, secret)):
        path = f"/rooms/{quote(space)}/state/m.space.child/{quote(child)}"
        await alice.ask("PUT", path, {"via": [alice.server.name], "order": f"{order}"})
    alias = f"#tea-{alice.localpart}-茶:{alice.server.name}"
    return Community(alice, bob, space, hall, club, alias)


async def tree(user: User, space: str) -> list[str]:
    answer = await user.ask("GET", f"/_matrix/client/v1/rooms/{quote(space)}/hierarchy")
    return [room["room_id"] for room in answer["rooms"]]


@pytest.mark.parametrize("version", VERSIONS)
async def test_find_and_enter(stage: Stage, pair: Pair, version: str) -> None:
    """Bob searches Alice's directory, looks at the space, joins it by alias and sees its rooms."""
    case = await community(stage, pair, version)
    bob, away = case.bob, case.alice.server.name
    search = {"filter": {"generic_search_term": case.alice.localpart}, "limit": 5}
    found = await bob.ask("POST", f"/publicRooms?server={away}", search)
    assert [room["room_id"] for room in found["chunk"]] == [case.space]
    assert found["chunk"][0]["room_type"] == "m.space"
    # Synapse keeps a list for 30 s, under its limit.
    limit = 100 + int(version)
    listed = await bob.ask("GET", f"/publicRooms?server={away}&limit={limit}")
    assert case.space in [room["room_id"] for room in listed["chunk"]]

    resolved = await bob.ask("GET", f"/directory/room/{quote(case.alias)}")
    assert resolved["room_id"] == case.space
    path = f"/_matrix/client/v1/room_summary/{quote(case.alias)}?via={away}"
    summary = await bob.ask("GET", path)
    assert summary["name"] == f"Tea lovers of {case.alice.localpart}"
    assert summary["membership"] == "leave"

    await bob.join(case.alias)
    await case.alice.wait_for_membership(case.space, bob.id, "join")
    # The rooms are on Alice's server only; the one for members is shown to a member.
    await eventually(lambda: sees(bob, case, [case.hall, case.club]), "Bob to see the rooms")
    await bob.join_via(case.club, away)
    await case.alice.wait_for_membership(case.club, bob.id, "join")


async def sees(user: User, case: Community, rooms: list[str]) -> bool:
    return await tree(user, case.space) == [case.space, *rooms]


async def test_what_is_not_shown(stage: Stage, pair: Pair) -> None:
    """From outside: no private room, no alias that is none, no logout."""
    case = await community(stage, pair, "11")
    bob, away = case.bob, case.alice.server.name
    private = await create(case.alice, room_version="11", preset="private_chat")
    for path in (
        f"/_matrix/client/v1/room_summary/{quote(private)}?via={away}",
        f"/_matrix/client/v1/room_summary/{quote('#none:' + away)}",
        f"/_matrix/client/v1/rooms/{quote(private)}/hierarchy",
        f"/directory/room/{quote('#none:' + away)}",
    ):
        with pytest.raises(Refused) as refused:
            await bob.ask("GET", path)
        assert refused.value.status in (403, 404), path
    assert not bob.told_to_log_out


async def test_follow_an_upgrade(stage: Stage, pair: Pair) -> None:
    """Alice replaces the hall; Bob, who is in it, joins the new one, and his tags come along."""
    case = await community(stage, pair, "10")
    bob, away = case.bob, case.alice.server.name
    await bob.join_via(case.hall, away)
    await case.alice.wait_for_membership(case.hall, bob.id, "join")
    tags = f"/user/{quote(bob.id)}/rooms/{{}}/account_data/m.tag"
    favourite = {"tags": {"m.favourite": {"order": 0.5}}}
    if bob.server.keeps_departures:
        await bob.ask("PUT", tags.format(quote(case.hall)), favourite)
    path = f"/rooms/{quote(case.hall)}/upgrade"
    new = (await case.alice.ask("POST", path, {"new_version": "12"}))["replacement_room"]

    async def is_replaced() -> bool:
        try:
            path = f"/rooms/{quote(case.hall)}/state/m.room.tombstone"
            return (await bob.ask("GET", path))["replacement_room"] == new
        except Refused:
            return False

    await eventually(is_replaced, "Bob to see the tombstone")
    await bob.join_via(new, away)
    await case.alice.wait_for_membership(new, bob.id, "join")
    name = await bob.ask("GET", f"/rooms/{quote(new)}/state/m.room.name")
    assert name == {"name": "Hall"}
    if bob.server.keeps_departures:
        assert await bob.ask("GET", tags.format(quote(new))) == favourite
