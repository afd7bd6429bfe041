"""A community of ten on two servers, with a public and a private space, through stock clients.

Alice has the spaces on our server, where five live; the other five live on a second one of ours
or on Synapse. Every test has a room of its own and ends with what each of the ten sees by sync.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from client import User, eventually
from nio import PushEventMatch, PushRuleKind, RoomPreset
from stage import SELFTEST
from town import (
    AVATAR,
    Town,
    create,
    hierarchy,
    member_event,
    member_of,
    members,
    refused,
    said,
    see,
    see_event,
    state,
    town,  # noqa: F401  (a fixture)
)


async def test_what_each_sees_of_the_space(town: Town) -> None:
    hall = town.children[0]
    rooms = (town.space, hall)
    for room in rooms:
        await see(town.all, lambda user, room=room: members(user, room) == town.ids, "the ten")
    for user in town.all:
        space, inside = (user.room(room) for room in rooms)
        assert (space.name, space.topic) == ("Gardeners", "All that grows")
        assert (space.canonical_alias, space.room_avatar_url) == (town.alias, AVATAR)
        assert (space.room_type, space.join_rule) == ("m.space", "public")
        assert hall in space.children and inside.parents == {town.space}
        assert (inside.name, inside.topic) == ("Hall", "Come in")
        assert (inside.join_rule, inside.room_type) == ("restricted", "")
        assert inside.canonical_alias == f"#hall:{town.alice.server.name}"
        for name, other in town.people.items():
            shown = inside.users[other.id]
            assert (shown.display_name, shown.avatar_url) == (
                name.title(),
                f"mxc://localhost/{name}",
            )
        tree = await hierarchy(user, town.space)
        assert list(tree) == [town.space, *town.children]
        assert {tree[room]["num_joined_members"] for room in rooms} == {10}


async def test_a_new_name_and_topic(town: Town) -> None:
    """A member's new name and a room's new topic reach everyone."""
    room = await town.add_joined("Shed")
    await town.alice.call("room_put_state", room, "m.room.topic", {"topic": "Tools"})
    await town.judy.call("set_displayname", "Judith")

    def shows(user: User) -> bool:
        shown = user.room(room)
        return (shown.topic, shown.user_name(town.judy.id)) == ("Tools", "Judith")

    await see(town.all, shows, "the topic and the name")
    await town.judy.call("set_displayname", "Judy")
    await see(town.all, lambda user: user.room(room).user_name(town.judy.id) == "Judy", "Judy")


async def test_all_at_once(town: Town) -> None:
    """The nine join in the same moment, and then all ten speak in the same moment."""
    room, via = await town.add("Party"), town.alice.server.name
    await asyncio.gather(*(user.join_via(room, via) for user in town.but("alice")))
    calls = (user.say(room, f"cheers from {user.id}") for user in town.all)
    sent = set(await asyncio.gather(*calls))
    await see(town.all, lambda user: sent <= user.view.events.keys(), "what the ten said")
    await see(town.all, lambda user: members(user, room) == town.ids, "the ten")


async def test_a_conversation(town: Town) -> None:
    """Chat, thread, reaction, edit, receipt; a second device sees the same."""
    room = await town.add_joined("Greenhouse")
    root = await town.bob.say(room, "the tomatos are ripe")
    await see_event(town.all, root)
    thread = {"rel_type": "m.thread", "event_id": root, "is_falling_back": True}
    fallback = {"m.in_reply_to": {"event_id": root}}
    reply = await town.grace.say(room, "which ones?", **{"m.relates_to": thread | fallback})
    await see_event(town.all, reply)
    annotation = {"rel_type": "m.annotation", "event_id": root, "key": "🍅"}
    reaction = await town.heidi.send(room, "m.reaction", {"m.relates_to": annotation})
    await see_event(town.all, reaction)
    content = {"msgtype": "m.text", "body": "the tomatoes are ripe"}
    relation = {"rel_type": "m.replace", "event_id": root}
    edit = await town.bob.say(
        room, "* the tomatoes are ripe", **{"m.new_content": content, "m.relates_to": relation}
    )
    await see_event(town.all, edit)
    last = await town.carol.say(room, "come and eat", **{"m.relates_to": fallback})
    await see_event(town.all, last)

    order = [root, reply, reaction, edit, last]
    for user in town.all:
        assert [event for event in user.view.events if event in order] == order
        relations = (await user.event(room, root))["unsigned"]["m.relations"]
        thread = relations["m.thread"]
        assert (thread["count"], thread["latest_event"]["event_id"]) == (1, reply)
        assert thread["current_user_participated"] == (user in (town.bob, town.grace))
        assert relations["m.replace"]["event_id"] == edit
        path = f"/_matrix/client/v1/rooms/{quote(room)}/threads"
        threads = (await user.ask("GET", path))["chunk"]
        assert [event["event_id"] for event in threads] == [root]
        path = f"/_matrix/client/v1/rooms/{quote(room)}/relations/{quote(root)}/m.annotation"
        found = (await user.ask("GET", path))["chunk"]
        assert [event["event_id"] for event in found] == [reaction]

    for reader in (town.eve, town.frank):
        await reader.read_up_to(room, last)
        await see(
            town.all,
            lambda user, reader=reader: user.view.read.get((room, reader.id)) == last,
            "the receipt",
        )
    for user in (town.dan, town.ivan):
        again = await user.login_again()
        try:
            assert [event for event in again.view.events if event in order] == order
            assert members(again, room) == town.ids
            assert {again.view.read[room, one.id] for one in (town.eve, town.frank)} == {last}
        finally:
            await again.close()


async def test_search(town: Town) -> None:
    """Everyone finds a message by its words, and nobody one that was redacted."""
    room = await town.add_joined("Library")
    await town.frank.say(room, "On the grafting of quinces")
    gone = await town.ivan.say(room, "Quinces are for fools")
    await town.alice.call("room_redact", room, gone, "rude")
    last = await town.alice.say(room, "Be kind")
    await see_event(town.all, last)
    body = {"search_categories": {"room_events": {"search_term": "quinces"}}}
    for user in town.all:
        answer = await user.ask("POST", "/search", body)
        results = answer["search_categories"]["room_events"]["results"]
        bodies = [one["result"]["content"]["body"] for one in results]
        assert bodies == ["On the grafting of quinces"], user.id


def counts(user: User, room: str) -> tuple[int, int]:
    shown = user.room(room)
    return shown.unread_notifications, shown.unread_highlights


async def test_unread_counts(town: Town) -> None:
    """What is unread, with a mention, for those who muted the room or want mentions only."""
    room = await town.add_joined("Compost")
    muted, mentions = [town.carol, town.frank], [town.dan, town.heidi]
    for user in muted:
        condition = [PushEventMatch("room_id", room)]
        await user.call(
            "set_pushrule", "global", PushRuleKind.override, room, conditions=condition
        )
    for user in mentions:
        await user.call("set_pushrule", "global", PushRuleKind.room, room)
    start = await town.alice.say(room, "start")
    await see_event(town.all, start)
    for user in town.but("alice"):
        await user.read_up_to(room, start)
    await see(town.all, lambda user: counts(user, room) == (0, 0), "nothing unread")

    await town.bob.say(room, "who has worms?")
    mentioned = [town.carol.id, town.dan.id, town.eve.id, town.grace.id, town.heidi.id]
    last = await town.bob.say(room, "you?", **{"m.mentions": {"user_ids": mentioned}})

    def expected(user: User) -> tuple[int, int]:
        if user is town.bob or user in muted:
            return 0, 0
        highlights = int(user.id in mentioned)
        return (highlights, highlights) if user in mentions else (2, highlights)

    def shows(user: User) -> bool:
        return last in user.view.events and counts(user, room) == expected(user)

    await see(town.all, shows, "the right counts")
    for user in town.all:
        await user.read_up_to(room, last)
    await see(town.all, lambda user: counts(user, room) == (0, 0), "nothing unread")

    for user in muted:
        await user.call("delete_pushrule", "global", PushRuleKind.override, room)
    last = await town.judy.say(room, "I have")

    def shows_one(user: User) -> bool:
        one = user is not town.judy and user not in mentions
        return last in user.view.events and counts(user, room) == (int(one), 0)

    await see(town.all, shows_one, "one unread")


async def test_announcements(town: Town) -> None:
    """Only moderators speak, on either server."""
    room = await town.add_joined("News", power_level_override={"events_default": 50})
    for user in (town.bob, town.grace):
        await refused(user.say(room, "me too"))
    await promote(town, room, town.grace)
    await see_event(town.all, await town.alice.say(room, "first"))
    await see_event(town.all, await town.grace.say(room, "second"))
    for user in town.all:
        assert said(user, room) == ["first", "second"]


async def promote(town: Town, room: str, user: User) -> None:
    """Alice makes the user a moderator, as all see."""
    path = f"/rooms/{quote(room)}/state/m.room.power_levels"
    levels = await town.alice.ask("GET", path)
    levels["users"] = levels.get("users", {}) | {user.id: 50}
    await town.alice.call("room_put_state", room, "m.room.power_levels", levels)
    await see(
        town.all, lambda one: one.room(room).power_levels.users.get(user.id) == 50, "the level"
    )


async def test_moderation(town: Town) -> None:
    """A moderator of one server kicks and bans; an invite after the unban brings Ivan back."""
    room = await town.add_joined("Market")
    grace, ivan, via = town.grace, town.ivan, town.alice.server.name
    others = town.but("ivan")
    await refused(town.bob.kick(room, ivan.id))
    await promote(town, room, grace)
    for call, membership in (("room_kick", "leave"), ("room_ban", "ban")):
        await grace.call(call, room, ivan.id, "shouting")
        await ivan.wait_for_leave(room)

        def shows(user: User, membership: str = membership) -> bool:
            content = member_event(user, room, ivan).get("content", {})
            return (content.get("membership"), content.get("reason")) == (membership, "shouting")

        await see(town.all, shows, f"Ivan under {membership}")
        assert all(members(user, room) == town.ids - {ivan.id} for user in others)
        await refused(ivan.say(room, "no!"))
        if membership == "leave":
            await ivan.join_via(room, via)
            await see(town.all, lambda user: members(user, room) == town.ids, "Ivan again")
    await refused(ivan.join_via(room, via))
    await refused(town.bob.invite(room, ivan.id))
    await grace.unban(room, ivan.id)
    # Synapse lists a room under both if the unban and the invite come with one sync.
    await see(
        [ivan],
        lambda _: member_event(ivan, room, ivan)["content"]["membership"] == "leave",
        "the unban",
    )
    await grace.invite(room, ivan.id)
    await ivan.wait_for_invite(room)
    await ivan.join(room)
    await see(town.all, lambda user: members(user, room) == town.ids, "Ivan again")
    await see_event(town.all, await ivan.say(room, "sorry"))


async def test_knocks(town: Town) -> None:
    """Two knock, one from each server: Heidi is let in, Dan is not, and the rest see nothing."""
    rule = state("m.room.join_rules", {"join_rule": "knock"})
    room = await town.add("Beehive", initial_state=[rule])
    alice, via = town.alice, town.alice.server.name
    await refused(town.eve.join_via(room, via))
    await see([alice], lambda user: room in user.view.joined, "the room")
    for user in (town.dan, town.heidi):
        assert (await hierarchy(user, town.space))[room]["join_rule"] == "knock"
        await user.knock(room, via, "I like honey")

        def shows(_: User, user: User = user) -> bool:
            content = member_event(alice, room, user).get("content", {})
            return (content.get("membership"), content.get("reason")) == ("knock", "I like honey")

        await see([alice], shows, "the knock")
        # Synapse remembers its answer to the first sync, which had no full_state.
        shown = await user.ask("GET", "/sync?full_state=true")
        knocked = shown["rooms"]["knock"][room]
        stripped = {event["type"]: event for event in knocked["knock_state"]["events"]}
        assert stripped["m.room.name"]["content"] == {"name": "Beehive"}
        assert stripped["m.room.member"]["content"]["membership"] == "knock"
    await alice.invite(room, town.heidi.id)
    await alice.call("room_kick", room, town.dan.id, "allergic")
    await town.heidi.wait_for_invite(room)
    await town.heidi.join(room)

    async def is_declined() -> bool:
        path = '/sync?filter={"room":{"include_leave":true}}'
        rooms = (await town.dan.ask("GET", path)).get("rooms", {})
        return room in rooms.get("leave", {}) and room not in rooms.get("knock", {})

    await eventually(is_declined, "Dan to be declined")
    inside = {alice.id, town.heidi.id}
    await see([alice, town.heidi], lambda user: members(user, room) == inside, "the two")
    last = await alice.say(room, "welcome")
    await see_event([town.heidi], last)
    for user in town.but("alice", "heidi"):
        await user.sync()
        assert room not in user.view.joined | user.view.invited and last not in user.view.events


async def test_private_space(town: Town) -> None:
    """A committee: two accept the invite, one rejects it; the others can neither find nor enter."""
    alice, via = town.alice, town.alice.server.name
    space = await create(alice, name="Committee", space=True, preset=RoomPreset.private_chat)
    rule = {"join_rule": "restricted", "allow": [member_of(space)]}
    board = await create(
        alice, name="Board", initial_state=[state("m.room.join_rules", rule)]
    )
    await alice.call("room_put_state", space, "m.space.child", {"via": [via]}, board)
    invited = (town.bob, town.frank, town.heidi)
    for user in invited:
        await alice.invite(space, user.id)
        await user.wait_for_invite(space)
    await town.heidi.leave(space)
    await town.heidi.wait_for_leave(space)
    inside = [alice, town.bob, town.frank]
    for user in inside[1:]:
        await user.join(space)
        assert list(await hierarchy(user, space)) == [space, board]
        await user.join_via(board, via)
    ids = {user.id for user in inside}
    for room in (space, board):
        await see(inside, lambda user, room=room: members(user, room) == ids, "the three")
    await see(
        inside,
        lambda user: member_event(user, space, town.heidi)["content"]["membership"] == "leave",
        "the rejection",
    )
    last = await alice.say(board, "in private")
    await see_event(inside, last)
    for user in town.but("alice", "bob", "frank"):
        await user.sync()
        assert not {space, board} & (user.view.joined | user.view.invited)
        assert last not in user.view.events
        for room in (space, board):
            await refused(user.join_via(room, via))
        await refused(hierarchy(user, space))
        assert space not in await hierarchy(user, town.space)


async def test_upgrade(town: Town) -> None:
    """Alice upgrades a room and puts the new one into the space; all ten follow."""
    old = await town.add_joined("Orchard", room_version="10", topic="Old trees")
    path = f"/rooms/{quote(old)}/upgrade"
    new = (await town.alice.ask("POST", path, {"new_version": "12"}))["replacement_room"]

    def shows(user: User) -> bool:
        shown = user.room(old)
        levels = shown.power_levels.defaults
        return (shown.replacement_room, levels.events_default) == (new, 50)

    await see(town.all, shows, "the tombstone")
    await town.alice.call("room_put_state", town.space, "m.space.child", {}, old)
    town.children.remove(old)
    await town.place(new)
    for user in town.but("alice"):
        await refused(user.say(old, "too late"))
        await user.join_via(new, town.alice.server.name)
    await see(town.all, lambda user: members(user, new) == town.ids, "the ten")
    await see_event(town.all, await town.judy.say(new, "new trees"))
    for user in town.all:
        shown = user.room(new)
        assert (shown.name, shown.topic) == ("Orchard", "Old trees")
        assert shown.join_rule == "restricted"
        # Synapse leaves the relation to the space behind.
        assert shown.parents == {town.space} or SELFTEST
        created = await user.ask("GET", f"/rooms/{quote(new)}/state/m.room.create")
        assert (created["room_version"], created["predecessor"]["room_id"]) == ("12", old)

        async def follows(user: User = user) -> bool:
            return list(await hierarchy(user, town.space)) == [town.space, *town.children]

        await eventually(follows, f"{user.id} to see the new room in the space")


async def test_leaving_the_space(town: Town) -> None:
    """Judy leaves the space, and stays in its rooms; no new one lets her in until she is back."""
    judy, via = town.judy, town.alice.server.name
    room = await town.add_joined("Pond")
    await judy.leave(town.space)
    await judy.wait_for_leave(town.space)
    remain = town.ids - {judy.id}
    others = town.but("judy")
    await see(others, lambda user: members(user, town.space) == remain, "Judy gone")
    fresh = await town.add("Well")
    await see(others, lambda user: fresh in user.room(town.space).children, "the new room")
    await refused(judy.join_via(fresh, via))
    await see_event(town.all, await town.alice.say(room, "still here, Judy?"))
    await see_event(town.all, await judy.say(room, "yes"))
    await judy.sync()
    assert fresh not in judy.room(town.space).children
    assert town.space not in judy.view.joined and members(judy, room) == town.ids

    await judy.join(town.alias)
    await see(town.all, lambda user: members(user, town.space) == town.ids, "Judy back")
    await judy.join_via(fresh, via)
    assert fresh in judy.room(town.space).children
