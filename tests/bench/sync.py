"""What reading costs: the first sync of large accounts, delivery to a waiting client, paging
through history, search, and clients that only wait. Exeunt, and Synapse with the same rooms in the same run.

Times are figures, never asserted. `--check` asserts the memory with the waiting clients.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from ca import Authority
from footprint import note
from link import port_of, reserve_port
from process import Measured, session
from servers import Exeunt, Server, Synapse
from user import User

#: Rooms of the users whose first sync is measured.
ACCOUNTS = (50, 500)
#: Users in a room beside those, and what they have said.
TALKERS = 5
MESSAGES = 15
#: So many in a row, by one server and then the other, and so many times.
FIRST_SYNCS = 7
ROUNDS = 3
#: Messages that are sent to a waiting client, one after the other.
DELIVERIES = 200
#: The room with a history: messages, and how many of them a page has. One in so many is searched for.
HISTORY = 2_000
PAGE = 50
RARE = 100
SEARCHES = 50
#: Clients that only wait, each in a few of the rooms.
CLIENTS = 2_000
ROOMS_OF_CLIENT = 5
IDLE_SECONDS = 60
#: Requests under way at once while things are set up.
AT_ONCE = 16
MB = 1_000_000

BUDGET_WAITING = 150 * MB


@dataclass
class Found:
    """Milliseconds, bytes and processor seconds."""

    #: Of the first sync, by the number of the account's rooms.
    first_sync: dict[int, float] = field(default_factory=dict)
    first_sync_cpu: dict[int, float] = field(default_factory=dict)
    first_sync_bytes: dict[int, int] = field(default_factory=dict)
    #: From the answer to a send until the waiting client has the event.
    delivery_p50: float = 0.0
    delivery_p99: float = 0.0
    #: Medians of a page of `/messages`, and of a search.
    page: float = 0.0
    page_cpu: float = 0.0
    search: float = 0.0
    search_cpu: float = 0.0
    memory_before: int = 0
    #: Without clients, once everyone is in their rooms.
    memory_joined: int = 0
    memory_waiting: int = 0
    #: Processor seconds of a minute in which all clients wait.
    waiting_cpu: float = 0.0


class Bench:
    """One server, and what is found of it."""

    def __init__(self, process: Measured, http: aiohttp.ClientSession) -> None:
        self._process = process
        self._http = http
        self._rooms = [""] * ACCOUNTS[-1]
        self._talkers: list[User] = []
        self._readers: dict[int, User] = {}
        self._numbers = itertools.count()
        self.kind = process.server.kind
        self.found = Found(memory_before=process.memory())

    async def furnish(self) -> None:
        """As many rooms as the largest account has, each with its talk."""
        note(f"{self.kind}: {ACCOUNTS[-1]} rooms with {TALKERS} users, {MESSAGES} messages each")
        http, via = self._http, self._process.server.name
        self._talkers = [await User.register(http, f"talker{n}") for n in range(TALKERS)]
        self._readers = {rooms: await User.register(http, f"reader{rooms}") for rooms in ACCOUNTS}

        async def furnish(number: int) -> None:
            room = await self._talkers[0].create_room()
            for user in self._talkers[1:]:
                await user.join(room, via)
            for rooms, reader in self._readers.items():
                if number < rooms:
                    await reader.join(room, via)
            for message in range(MESSAGES):
                await self._talkers[message % TALKERS].say(room)
            self._rooms[number] = room

        await each(lambda n=n: furnish(n) for n in range(ACCOUNTS[-1]))

    async def first_syncs(self, rooms: int) -> list[float]:
        """What each took, in seconds."""
        times, before = [], self._process.cpu()
        for _ in range(FIRST_SYNCS):
            # As bytes: what the client makes of it is not the server's time. No two requests are the
            # same: Synapse keeps its answers for a while.
            path = f"/sync?set_presence=offline&timeout={next(self._numbers)}"
            began = time.monotonic()
            body = await self._readers[rooms].bytes(path)
            times.append(time.monotonic() - began)
        cpu = (self._process.cpu() - before) / FIRST_SYNCS / ROUNDS
        self.found.first_sync_cpu[rooms] = self.found.first_sync_cpu.get(rooms, 0.0) + cpu
        self.found.first_sync_bytes[rooms] = len(body)
        joined = json.loads(body)["rooms"]["join"]
        assert len(joined) == rooms, f"{len(joined)} rooms"
        return times

    async def read(self) -> None:
        """Delivery, paging and search."""
        # Whoever is in the first room is in all of the small account's.
        await self._deliver(self._talkers[0], self._readers[ACCOUNTS[0]])
        await self._look_back(self._talkers[0], self._readers[ACCOUNTS[0]])

    async def _deliver(self, sender: User, reader: User) -> None:
        note(f"{self.kind}: {DELIVERIES} deliveries")
        room, delays = self._rooms[0], []
        await reader.sync()
        for _ in range(DELIVERIES):
            waiting = asyncio.create_task(reader.until(room, is_message))
            await asyncio.sleep(0.01)
            await sender.say(room)
            acknowledged = time.monotonic()
            await waiting
            delays.append(time.monotonic() - acknowledged)
        self.found.delivery_p50 = statistics.median(delays) * 1000
        self.found.delivery_p99 = statistics.quantiles(delays, n=100)[-1] * 1000

    async def _look_back(self, writer: User, reader: User) -> None:
        note(f"{self.kind}: a history of {HISTORY} messages")
        room = self._rooms[0]
        for number in range(HISTORY):
            rare = " A needle." if number % RARE == 0 else ""
            await writer.say(room, f"Message {number} of a long conversation.{rare}")
        pages, token, seen, before = [], "", 0, self._process.cpu()
        while seen < HISTORY:
            began = time.monotonic()
            page = await reader.page(room, token, PAGE)
            pages.append(time.monotonic() - began)
            token, seen = page["end"], seen + len(page["chunk"])
        self.found.page = statistics.median(pages) * 1000
        self.found.page_cpu = (self._process.cpu() - before) / len(pages)
        searches, before = [], self._process.cpu()
        for _ in range(SEARCHES):
            began = time.monotonic()
            hits = await reader.search("needle")
            searches.append(time.monotonic() - began)
            assert hits["count"] == HISTORY // RARE, f"{hits['count']} hits"
        self.found.search = statistics.median(searches) * 1000
        self.found.search_cpu = (self._process.cpu() - before) / SEARCHES

    async def wait(self, number: int) -> None:
        """So many clients that only wait."""
        connector = aiohttp.TCPConnector(
            ssl=self._process.server.authority.client_context(), limit=0
        )
        url, timeout = self._process.server.client_url, aiohttp.ClientTimeout(total=600)
        async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as http:
            clients: list[User] = []
            via = self._process.server.name

            async def enter(number: int) -> None:
                user = await User.register(http, f"client{number}")
                for step in range(ROOMS_OF_CLIENT):
                    await user.join(self._rooms[(number * 7 + step * 101) % len(self._rooms)], via)
                await user.sync(0)
                clients.append(user)

            note(f"{number} clients in {ROOMS_OF_CLIENT} rooms each")
            await each(lambda n=n: enter(n) for n in range(number))
            self.found.memory_joined = self._process.memory()
            note("waiting")
            stop = asyncio.Event()

            async def poll(user: User) -> None:
                while not stop.is_set():
                    await user.sync(300_000)

            polls = [asyncio.create_task(poll(user)) for user in clients]
            # Until all have heard that the others are there.
            await asyncio.sleep(IDLE_SECONDS)
            before = self._process.cpu()
            await asyncio.sleep(IDLE_SECONDS)
            self.found.waiting_cpu = (self._process.cpu() - before) * 60 / IDLE_SECONDS
            self.found.memory_waiting = self._process.memory()
            failed = [poll for poll in polls if poll.done()]
            assert not failed, f"{len(failed)} polls ended: {failed[0].exception()}"
            stop.set()
            for task in polls:
                task.cancel()
            await asyncio.gather(*polls, return_exceptions=True)


def is_message(event: dict[str, Any]) -> bool:
    return event["type"] == "m.room.message"


async def each(operations: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """All of them, a few at a time."""
    queue = iter(operations)

    async def worker() -> None:
        for operation in queue:
            await operation()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())


async def measure(kinds: list[type[Server]], folder: Path, clients: int) -> dict[str, Found]:
    authority = Authority(folder / "ca")
    async with contextlib.AsyncExitStack() as stack:
        benches = []
        for kind in kinds:
            with reserve_port() as holder:
                port = port_of(holder)
            server = kind(
                folder / kind.kind, authority, f"localhost:{port}", port, secret="sync-bench"
            )
            process = await stack.enter_async_context(Measured(server))
            http = await stack.enter_async_context(session(server))
            benches.append(Bench(process, http))
        for bench in benches:
            await bench.furnish()
        for rooms in ACCOUNTS:
            await first_syncs(benches, rooms)
        for bench in benches:
            await bench.read()
        # Thousands of waiting clients are not for a Synapse of one process.
        if clients:
            await benches[0].wait(clients)
        return {bench.kind: bench.found for bench in benches}


async def first_syncs(benches: list[Bench], rooms: int) -> None:
    """In turns: what a machine gives changes from one minute to the next."""
    times: dict[str, list[float]] = {bench.kind: [] for bench in benches}
    for _ in range(ROUNDS):
        for bench in benches:
            times[bench.kind] += await bench.first_syncs(rooms)
    for bench in benches:
        bench.found.first_sync[rooms] = statistics.median(times[bench.kind]) * 1000
        note(f"{bench.kind}: first sync of {rooms} rooms: {bench.found.first_sync[rooms]:.1f} ms")


def table(found: dict[str, Found]) -> str:
    kinds = list(found.values())
    rows = [("", list(found))]
    for rooms in ACCOUNTS:
        ours = kinds[0].first_sync[rooms]
        rows += [
            (f"first sync, {rooms} rooms", [f"{f.first_sync[rooms]:.1f} ms" for f in kinds]),
            ("  times ours", [f"{f.first_sync[rooms] / ours:.1f}" for f in kinds]),
            ("  CPU", [f"{f.first_sync_cpu[rooms] * 1000:.0f} ms" for f in kinds]),
            ("  body", [f"{f.first_sync_bytes[rooms] / MB:.2f} MB" for f in kinds]),
        ]
    rows += [
        ("delivery after the answer to the sender, p50", [f"{f.delivery_p50:.1f} ms" for f in kinds]),
        ("  p99", [f"{f.delivery_p99:.1f} ms" for f in kinds]),
        (f"a page of {PAGE} messages", [f"{f.page:.1f} ms" for f in kinds]),
        ("  CPU", [f"{f.page_cpu * 1000:.1f} ms" for f in kinds]),
        (f"a search with {HISTORY // RARE} hits", [f"{f.search:.1f} ms" for f in kinds]),
        ("  CPU", [f"{f.search_cpu * 1000:.1f} ms" for f in kinds]),
        ("memory at the start", [f"{f.memory_before / MB:.1f} MB" for f in kinds]),
        ("memory, everyone in their rooms", [f"{f.memory_joined / MB:.1f} MB" for f in kinds]),
        ("memory, all clients waiting", [f"{f.memory_waiting / MB:.1f} MB" for f in kinds]),
        ("CPU of a minute in which all wait", [f"{f.waiting_cpu:.2f} s" for f in kinds]),
    ]
    return "\n".join(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows)


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alone", action="store_true", help="without Synapse")
    parser.add_argument("--check", action="store_true", help="fail over the budget")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="that wait, on Exeunt")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kinds: list[type[Server]] = [Exeunt] if options.alone else [Exeunt, Synapse]
    with tempfile.TemporaryDirectory() as folder:
        found = await measure(kinds, Path(folder), options.clients)
    print(f"load average {os.getloadavg()[0]:.1f}")
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps({k: asdict(f) for k, f in found.items()}, indent=1))
    over = options.check and found["exeunt"].memory_waiting > BUDGET_WAITING
    if over:
        print(f"over the budget of {BUDGET_WAITING / MB:.0f} MB", file=sys.stderr)
    return int(over)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
