"""A flood of invites from a scripted server, and what is left once it has been triaged: nothing.

Prints its figures (pytest -s). EXEUNT_TRIAGE_INVITES says how many invites; 10,000 take minutes,
most of them on the scripted server's side.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from client import User, eventually
from hostile import Hostile
from servers import Exeunt
from stage import SELFTEST, Stage

INVITES = int(os.environ.get("EXEUNT_TRIAGE_INVITES", "200"))
AT_ONCE = 8
USERS = 10
#: For turning all of them down, and for the scripted server to have heard of it, in seconds.
DEADLINE = 30.0 + INVITES / 100
#: Rows and bytes that have nothing to do with invites, such as keys and what the database notes.
OTHER_ROWS = 100
OTHER_BYTES = 512 * 1024

pytestmark = pytest.mark.skipif(SELFTEST, reason="Synapse has no triage")


@pytest_asyncio.fixture
async def hostile(stage: Stage) -> AsyncIterator[Hostile]:
    hostile = Hostile(stage.authority, stage.reserve())
    await hostile.start()
    try:
        yield hostile
    finally:
        await hostile.stop()


async def flood(hostile: Hostile, victim: Exeunt, users: list[User]) -> dict[str, User]:
    """Invites users to rooms that nobody ever heard of; says whom to which."""
    rooms: dict[str, User] = {}
    turns = iter(itertools.islice(itertools.cycle(users), INVITES))

    async def worker() -> None:
        for user in turns:
            rooms[(await hostile.invite(victim, user.id, "12")).id] = user

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())
    return rooms


async def size(victim: Exeunt) -> tuple[int, int]:
    """Rows and bytes of the database, once it is compacted; the server is stopped for it."""
    await victim.stop()
    await victim.run("store", "collect")
    rows = int((await victim.run("store", "verify")).split()[0])
    stored = sum(file.stat().st_size for file in _tables(victim.folder / "store" / "db"))
    await victim.start()
    return rows, stored


def _tables(folder: Path) -> list[Path]:
    return list(folder.glob("*.sst"))


@pytest.mark.parametrize("mode", ("--reject", "--silent"))
async def test_flood_is_triaged(stage: Stage, hostile: Hostile, mode: str) -> None:
    victim = await stage.add("exeunt")
    users = [await stage.user(victim, "bob") for _ in range(USERS)]
    before = await size(victim)
    started = time.monotonic()
    rooms = await flood(hostile, victim, users)
    flooding = time.monotonic() - started
    full = await size(victim)

    only = ("invites", "triage", "--server", hostile.name.split(":")[0])
    assert f"{INVITES} invites match; nothing was done" in await victim.run(*only)
    last = max(rooms)
    bob = rooms[last]
    await bob.wait_for_invite(last)
    hostile.calls.clear()
    started = time.monotonic()
    assert f"{INVITES} are turned down" in await victim.run(*only, mode)
    answered = time.monotonic() - started
    await bob.wait_for_leave(last)

    async def all_are_told() -> bool:
        return "no departure is waiting" in await victim.run("departures")

    await eventually(all_are_told, "every departure to be delivered", DEADLINE)
    delivered = time.monotonic() - started
    assert delivered < DEADLINE
    told = hostile.called("send_leave_v2")
    if mode == "--silent":
        assert not hostile.calls, "nobody hears of it"
    else:
        assert len(told) == INVITES
    remembered = await size(victim)

    # Ninety days later.
    victim.options["rooms"] = 'keep_departures = "1ms"\nkeep_signatures = "1ms"'
    await victim.stop()
    await victim.start()
    async def is_swept() -> bool:
        return "no membership change is known" in await victim.run("timeline", last)

    await eventually(is_swept, "the sweep", DEADLINE)
    after = await size(victim)
    print(
        f"\n{INVITES} invites in {flooding:.1f} s; {mode} answered after {answered:.1f} s, "
        f"delivered after {delivered:.1f} s; rows and bytes: {before} before, {full} with the "
        f"invites, {remembered} triaged, {after} in the end"
    )
    assert after[0] <= before[0] + OTHER_ROWS
    assert after[1] <= before[1] + OTHER_BYTES
    assert "0 invites match" in await victim.run(*only)
