"""Ten people on two servers, who are in a space that one of them has made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from client import Refused, User, eventually
from nio import RoomPreset, RoomVisibility
from servers import Synapse
from stage import SELFTEST, UNDER_TEST, Stage, fresh_localpart

HOME = ("alice", "bob", "carol", "dan", "eve")
AWAY = ("frank", "grace", "heidi", "ivan", "judy")
AVATAR = "mxc://localhost/gardeners"
#: Synapse keeps an answer of another server's directory for 30 s.
DIRECTORY_DEADLINE = 60.0


@dataclass
class Town:
    """The ten, all of them in the public space; Alice founded it."""

    people: dict[str, User]
    space: str = ""
    alias: str = ""
    orders: int = 0
    #: The rooms of the space in its order.
    children: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> User:
        try:
            return self.people[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def all(self) -> list[User]:
        return list(self.people.values())

    def but(self, *names: str) -> list[User]:
        return [user for name, user in self.people.items() if name not in names]

    @property
    def ids(self) -> set[str]:
        return {user.id for user in self.all}

    async def add(self, name: str, **options: Any) -> str:
        """Alice adds a room to the space, which its members may join."""
        rule = {"join_rule": "restricted", "allow": [member_of(self.space)]}
        parent = {"via": [self.alice.server.name], "canonical": True}
        options.setdefault("initial_state", []).append(
            state("m.space.parent", parent, self.space)
        )
        if not any(event["type"] == "m.room.join_rules" for event in options["initial_state"]):
            options["initial_state"].append(state("m.room.join_rules", rule))
        room = await create(self.alice, name=name, preset=RoomPreset.private_chat, **options)
        await self.place(room)
        return room

    async def place(self, room: str) -> None:
        """Alice puts the room at the end of the space."""
        self.orders += 1
        child = {"via": [self.alice.server.name], "order": f"{self.orders:03}"}
        await self.alice.call("room_put_state", self.space, "m.space.child", child, room)
        self.children.append(room)

    async def add_joined(self, name: str, **options: Any) -> str:
        """A new room of the space that all ten have joined, as each of them sees."""
        room = await self.add(name, **options)
        for user in self.but("alice"):
            await user.join_via(room, self.alice.server.name)
        await see(self.all, lambda user: members(user, room) == self.ids, "the ten")
        return room


def state(kind: str, content: dict[str, Any], key: str = "") -> dict[str, Any]:
    return {"type": kind, "state_key": key, "content": content}


def member_of(space: str) -> dict[str, Any]:
    return {"type": "m.room_membership", "room_id": space}


async def create(user: User, **options: Any) -> str:
    return (await user.call("room_create", **options)).room_id


def members(user: User, room: str) -> set[str]:
    """The members of a room that the user sees; nobody where the user is not in it."""
    if room not in user.view.joined:
        return set()
    shown = user.room(room)
    return set(shown.users) - set(shown.invited_users)


async def see(users: Iterable[User], predicate: Callable[[User], bool], what: str) -> None:
    """Each of the users syncs until `predicate` holds for what the own client shows."""

    def holds(user: User) -> Callable[[Any], bool]:
        return lambda _: predicate(user)

    await asyncio.gather(*(user.wait_for(holds(user), what) for user in users))


async def see_event(users: Iterable[User], event_id: str) -> None:
    await see(users, lambda user: event_id in user.view.events, f"the event {event_id}")


def said(user: User, room: str) -> list[str]:
    """The messages of a room in the order in which the user's client got them."""
    return [
        event["content"].get("body")
        for event_id, event in user.view.events.items()
        if event["type"] == "m.room.message" and user.view.room_of[event_id] == room
    ]


async def refused(call: Awaitable[Any]) -> None:
    with pytest.raises(Refused) as info:
        await call
    assert info.value.status == 403, info.value
    # Synapse says the latter to whom it knows to be banned.
    assert info.value.errcode in ("M_FORBIDDEN", "M_BAD_STATE"), info.value


async def hierarchy(user: User, space: str) -> dict[str, dict[str, Any]]:
    """The tree below a space, in its order."""
    rooms = (await user.call("space_get_hierarchy", space)).rooms
    return {room["room_id"]: room for room in rooms}


def member_event(user: User, room: str, member: User) -> dict[str, Any]:
    """The last member event of `member` that the user's client got."""
    found = {}
    for event_id, event in user.view.events.items():
        of_member = event["type"] == "m.room.member" and event["state_key"] == member.id
        if of_member and user.view.room_of[event_id] == room:
            found = event
    return found


SECOND = [UNDER_TEST] if SELFTEST else [UNDER_TEST, Synapse.kind]


@pytest_asyncio.fixture(scope="module", params=SECOND)
async def town(stage: Stage, request: pytest.FixtureRequest) -> AsyncIterator[Town]:
    """Alice sets the community up; the nine find it, look at it, and join."""
    servers = {HOME: await stage.add(UNDER_TEST), AWAY: await stage.add(request.param)}
    people = {}
    for names, server in servers.items():
        for name in names:
            people[name] = await User.create(server, fresh_localpart(name))
            await people[name].call("set_displayname", name.title())
            await people[name].call("set_avatar", f"mxc://localhost/{name}")
    town = Town(people)
    try:
        await found(town)
        await gather(town)
        yield town
        assert not [user.id for user in town.all if user.told_to_log_out]
    finally:
        for user in town.all:
            await user.close()


async def found(town: Town) -> None:
    alice = town.alice
    town.space = await create(
        alice,
        name="Gardeners",
        topic="All that grows",
        alias="gardeners",
        space=True,
        visibility=RoomVisibility.public,
        preset=RoomPreset.public_chat,
        power_level_override={"events_default": 100},
        initial_state=[state("m.room.avatar", {"url": AVATAR})],
    )
    town.alias = f"#gardeners:{alice.server.name}"
    await town.add("Hall", topic="Come in", alias="hall")
    answer = await alice.call("room_get_visibility", town.space)
    assert answer.visibility == "public"


async def gather(town: Town) -> None:
    """Each of the nine goes the way of a stock client: directory, summary, join, hierarchy."""
    away = town.alice.server.name
    (hall,) = town.children
    for user in town.but("alice"):

        async def finds(user: User = user) -> bool:
            search = {"filter_generic_search_term": "gardener"}
            if user.server.name != away:
                search["server"] = away
            rooms = (await user.call("list_public_rooms", **search)).public_rooms
            return [(one.room_id, one.name) for one in rooms] == [(town.space, "Gardeners")]

        await eventually(finds, f"{user.id} to find the space", DIRECTORY_DEADLINE)
        answer = await user.call("room_resolve_alias", town.alias)
        assert (answer.room_id, away in answer.servers) == (town.space, True)
        path = f"/_matrix/client/v1/room_summary/{quote(town.space)}?via={away}"
        before = await user.ask("GET", path)
        assert before["membership"] == "leave"
        await user.join(town.alias)
        tree = await hierarchy(user, town.space)
        assert list(tree) == [town.space, hall]
        (child,) = tree[town.space]["children_state"]
        assert (child["state_key"], child["type"]) == (hall, "m.space.child")
        await user.join_via(hall, child["content"]["via"][0])
        for shown in (before, tree[town.space]):
            assert shown["name"] == "Gardeners" and shown["topic"] == "All that grows"
            assert shown["avatar_url"] == AVATAR and shown["canonical_alias"] == town.alias
            assert shown["room_type"] == "m.space" and shown["join_rule"] == "public"
            assert shown["num_joined_members"] >= 1 and not shown["guest_can_join"]
