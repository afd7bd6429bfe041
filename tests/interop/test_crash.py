"""kill -9 under load, again and again: what was acknowledged is still there."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field

import aiohttp
import pytest
import pytest_asyncio
from client import Refused, User, eventually
from servers import Server
from stage import UNDER_TEST, Stage

ROUNDS = int(os.environ.get("EXEUNT_CRASH_ROUNDS", "20"))
#: Printed by pytest in the test's name; set it to repeat a run's decisions.
SEED = int(os.environ.get("EXEUNT_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
WORKERS = 4
#: The kill comes so long after the round's first acknowledgement, at most.
LATEST_KILL = 2.5
CHECKS_AT_ONCE = 16
#: Every round leaves work behind; so much of it is checked again after each later crash.
RECHECKED = 400

Cut = (aiohttp.ClientConnectionError, TimeoutError, aiohttp.ClientPayloadError)


@dataclass
class Journal:
    """What the server acknowledged, and what was under way when it died."""

    #: (room, event id) and a member of the room who may read the event.
    messages: dict[tuple[str, str], User] = field(default_factory=dict)
    #: (room, user id): the memberships that may be found, one unless a change was under way.
    memberships: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    #: Who is asked about the memberships of a room, if its resident is on this server.
    witnesses: dict[str, User] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.messages) + len(self.memberships)

    async def change(
        self, room: str, user: str, membership: str, call: Awaitable[None]
    ) -> None:
        """Awaits the call; until it is acknowledged the old and the new membership are right."""
        found = self.memberships.setdefault((room, user), {"none"})
        found.add(membership)
        await call
        self.memberships[room, user] = {membership}


class Load:
    """Workers that use the server until it dies under them."""

    def __init__(self, journal: Journal, users: list[User], outsider: User, seed: int) -> None:
        self.journal = journal
        self._users = users
        self._outsider = outsider
        self._seed = seed

    async def run_until_cut(self) -> None:
        workers = [
            self._until_cut(self._local_life(user, random.Random(f"{self._seed}/{n}")))
            for n, user in enumerate(self._users)
        ]
        workers.append(self._until_cut(self._remote_invites(random.Random(f"{self._seed}/r"))))
        await asyncio.gather(*workers)

    async def _until_cut(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Cut:
            pass  # the server was killed, as planned

    async def _local_life(self, user: User, dice: random.Random) -> None:
        """Rooms, messages, and invites that are taken or rejected, all on one server."""
        others = [other for other in self._users if other is not user]
        while True:
            room = await user.create_room(dice.choice(("6", "11", "12")))
            self.journal.witnesses[room] = user
            self.journal.memberships[room, user.id] = {"join"}
            for _ in range(dice.randrange(1, 8)):
                event_id = await user.say(room, f"number {dice.random()}")
                self.journal.messages[room, event_id] = user
            guest = dice.choice(others)
            change = self.journal.change
            await change(room, guest.id, "invite", user.invite(room, guest.id))
            if dice.random() < 0.5:
                await change(room, guest.id, "leave", guest.leave(room))
            else:
                await change(room, guest.id, "join", guest.join(room))
                event_id = await guest.say(room, "thanks for having me")
                self.journal.messages[room, event_id] = user

    async def _remote_invites(self, dice: random.Random) -> None:
        """Invites from a server that stays up, most of them rejected."""
        while True:
            guest = dice.choice(self._users)
            room = await self._outsider.create_room(dice.choice(("10", "12")))
            try:
                await self.journal.change(
                    room, guest.id, "invite", self._outsider.invite(room, guest.id)
                )
            except Refused:
                return  # the inviter's server met the crash before we did
            if dice.random() < 0.8:
                await self.journal.change(room, guest.id, "leave", guest.leave(room))


@dataclass
class Cluster:
    victim: Server
    users: list[User]
    outsider: User
    journal: Journal


@pytest_asyncio.fixture(scope="module")
async def cluster(stage: Stage) -> AsyncIterator[Cluster]:
    victim = await stage.add(UNDER_TEST)
    peer = await stage.add(UNDER_TEST)
    users = [await User.create(victim, f"worker{n}") for n in range(WORKERS)]
    outsider = await User.create(peer, "outsider")
    yield Cluster(victim, users, outsider, Journal())
    for user in (*users, outsider):
        await user.close()


@pytest.mark.parametrize("crash", range(ROUNDS), ids=lambda n: f"seed{SEED}-{n}")
async def test_acknowledged_survives_kill(cluster: Cluster, crash: int) -> None:
    dice = random.Random(f"{SEED}/{crash}")
    load = Load(cluster.journal, cluster.users, cluster.outsider, dice.randrange(2**32))
    before = cluster.journal.size

    async def has_work() -> bool:
        return working.done() or cluster.journal.size > before

    working = asyncio.create_task(load.run_until_cut())
    await eventually(has_work, "the first acknowledgement")
    await asyncio.wait({working}, timeout=dice.uniform(0, LATEST_KILL))
    assert not working.done(), f"the load ended by itself: {working.exception()}"
    await cluster.victim.kill9()
    await working

    await cluster.victim.verify_store()
    await cluster.victim.start()
    assert await lost(cluster, dice) == []


async def lost(cluster: Cluster, dice: random.Random) -> list[str]:
    """Everything in the journal that the restarted server does not know."""
    journal = cluster.journal
    at_once = asyncio.Semaphore(CHECKS_AT_ONCE)
    shown = {user.id: await shown_rooms(user) for user in cluster.users}

    async def message(room: str, event_id: str, reader: User) -> str | None:
        async with at_once:
            try:
                await reader.event(room, event_id)
            except Refused as refused:
                return f"message {event_id} in {room}: {refused}"
        return None

    async def membership(room: str, user: str, expected: set[str]) -> str | None:
        witness = journal.witnesses.get(room)
        if witness is None:
            found = shown[user].get(room, "leave")
            expected = {"leave" if one == "none" else one for one in expected}
        else:
            async with at_once:
                found = await witness.membership(room, user) or "none"
        if found in expected:
            return None
        return f"{user} in {room} is {found}, not {sorted(expected)}"

    messages = sample(dice, list(journal.messages.items()))
    memberships = sample(dice, list(journal.memberships.items()))
    findings = await asyncio.gather(
        *(message(*key, reader) for key, reader in messages),
        *(membership(*key, expected) for key, expected in memberships),
    )
    return [finding for finding in findings if finding is not None]


def sample(dice: random.Random, items: list) -> list:
    """The newest half of what may be checked, and older ones by chance."""
    newest = items[-RECHECKED // 2 :]
    older = items[: -RECHECKED // 2]
    return newest + dice.sample(older, min(len(older), RECHECKED // 2))


async def shown_rooms(user: User) -> dict[str, str]:
    """The rooms that a new device of the user is shown, with the user's membership."""
    device = await user.login_again()
    await device.close()
    return {
        **dict.fromkeys(device.view.invited, "invite"),
        **dict.fromkeys(device.view.joined, "join"),
    }
