"""A closed account leaves everything, whatever happens to its server meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest
from client import PASSWORD, Refused, User
from stage import SELFTEST, Stage



ROOMS = int(os.environ.get("EXEUNT_JOB_ROOMS", "60"))
#: Rooms to which the account is invited only.
INVITES = ROOMS // 10
AT_ONCE = 8
#: For all departures together.
DEADLINE = 60.0 + ROOMS / 2

pytestmark = pytest.mark.skipif(SELFTEST, reason="Synapse leaves at its own pace")


async def for_each(items: list[str], act: Callable[[str], Awaitable[None]]) -> None:
    """Acts on all items, a few at a time."""
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await act(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())


async def test_deactivation_survives_a_kill(stage: Stage) -> None:
    there, here = await stage.add("exeunt"), await stage.add("exeunt")
    alice, bob = await stage.user(there, "alice"), await stage.user(here, "bob")
    rooms = [await alice.create_room("11", public=True) for _ in range(ROOMS)]
    await for_each(rooms, lambda room: bob.join_via(room, there.name))
    invites = [await alice.create_room("12") for _ in range(INVITES)]
    await for_each(invites, lambda room: alice.invite(room, bob.id))

    identifier = {"type": "m.id.user", "user": bob.id}
    auth = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    await bob.ask("POST", "/account/deactivate", {"auth": auth})
    with pytest.raises(Refused):
        await bob.sync()
    await alice.wait_for(lambda _: departed(alice, bob) >= ROOMS // 2, "half of the leaves", DEADLINE)
    await here.kill9()
    await here.start()

    everything = ROOMS + INVITES
    await alice.wait_for(lambda _: departed(alice, bob) == everything, "every leave", DEADLINE)
    for room in (*rooms[:3], *invites[:3]):
        assert await alice.membership(room, bob.id) == "leave"


def departed(alice: User, bob: User) -> int:
    """Leaves of Bob that Alice has seen: one for each room."""
    return sum(
        event["type"] == "m.room.member"
        and event["state_key"] == bob.id
        and event["content"]["membership"] == "leave"
        for event in alice.view.events.values()
    )
