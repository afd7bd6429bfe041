"""What membership costs: two Exeunts, then two Synapses, with the same operations in the same run.

Times are figures, never asserted. `--check` asserts the processor time of the main operation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from ca import Authority
from link import port_of, reserve_port
from process import Measured, session
from servers import Exeunt, Server, Synapse

CONCURRENCY = (1, 4, 16)
#: Operations of each worker, by how many work at once.
OPERATIONS = {1: 60, 4: 25, 16: 10}
#: One phase ends within this many seconds, or the run fails.
DEADLINE = 300.0
SYNC_TIMEOUT_MS = 20_000
MB = 1_000_000

TARGET_REJECT_P50_MS = 15.0
TARGET_REJECT_CPU = 5.0
TARGET_REJECT_RATE = 25.0
TARGET_SEND_RATE = 10.0


class User:
    """A logged-in user, who knows how far they have synced."""

    def __init__(self, http: aiohttp.ClientSession, id: str, token: str) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"}
        self.id = id
        self._since: str | None = None
        self._sent = 0

    @classmethod
    async def register(cls, http: aiohttp.ClientSession, name: str) -> User:
        path = "/_matrix/client/v3/register"
        body = {"username": name, "password": "correct horse battery staple"}
        async with http.post(path, json=body) as answer:
            auth = {"type": "m.login.dummy", "session": (await answer.json())["session"]}
        async with http.post(path, json=body | {"auth": auth}) as answer:
            made = await answer.json()
        return cls(http, made["user_id"], made["access_token"])

    async def ask(self, method: str, path: str, **more: Any) -> Any:
        url = f"/_matrix/client/v3{path}"
        async with self._http.request(method, url, headers=self._headers, **more) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{method} {path}: {answer.status} {await answer.text()}")
            return await answer.json()

    async def bytes(self, path: str) -> bytes:
        url = f"/_matrix/client/v3{path}"
        async with self._http.get(url, headers=self._headers) as answer:
            if answer.status != 200:
                raise RuntimeError(f"GET {path}: {answer.status} {await answer.text()}")
            return await answer.read()

    async def create_room(self, preset: str = "public_chat") -> str:
        body = {"preset": preset, "room_version": "11"}
        return (await self.ask("POST", "/createRoom", json=body))["room_id"]

    async def invite(self, room: str, user: str) -> None:
        await self.ask("POST", f"/rooms/{quote(room)}/invite", json={"user_id": user})

    async def join(self, room: str, via: str) -> None:
        await self.ask("POST", f"/join/{quote(room)}?via={via}&server_name={via}", json={})

    async def leave(self, room: str) -> None:
        await self.ask("POST", f"/rooms/{quote(room)}/leave", json={})

    async def say(self, room: str) -> str:
        self._sent += 1
        path = f"/rooms/{quote(room)}/send/m.room.message/{self._sent}"
        body = {"msgtype": "m.text", "body": "The quick brown fox jumps over the lazy dog."}
        return (await self.ask("PUT", path, json=body))["event_id"]

    async def sync(self, timeout_ms: int = SYNC_TIMEOUT_MS) -> Any:
        query = f"?timeout={timeout_ms}" + (f"&since={self._since}" if self._since else "")
        answer = await self.ask("GET", f"/sync{query}")
        self._since = answer["next_batch"]
        return answer

    async def until(self, room: str, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Syncs until the room's timeline has such an event."""
        while True:
            joined = (await self.sync()).get("rooms", {}).get("join", {})
            if any(map(wanted, joined.get(room, {}).get("timeline", {}).get("events", []))):
                return


def is_member(user: str, membership: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: (
        event["type"] == "m.room.member"
        and event["state_key"] == user
        and event["content"].get("membership") == membership
    )


@dataclass
class Phase:
    """One kind of operation at one concurrency; milliseconds and seconds."""

    operations: int
    p50: float
    p99: float
    per_second: float
    #: Processor seconds of both servers for 1,000 operations.
    cpu: float


@dataclass
class Found:
    phases: dict[str, dict[int, Phase]] = field(default_factory=dict)
    #: Resident bytes of both servers at the end.
    memory: int = 0


Operation = Callable[[], Awaitable[None]]
#: Makes what the operations of a worker need; called before the clock runs.
Worker = Callable[[int, int], Awaitable[list[Operation]]]


class Pair:
    """Two servers of one kind, whose users meet over federation."""

    def __init__(self, near: Measured, far: Measured, stack: AsyncExitStack) -> None:
        self._near, self._far, self._stack = near, far, stack
        self._users = 0

    async def _user(self, server: Measured) -> User:
        self._users += 1
        # Long polls must not wait for a connection.
        http = await self._stack.enter_async_context(session(server.server))
        return await User.register(http, f"user{self._users}")

    async def near(self) -> User:
        return await self._user(self._near)

    async def far(self) -> User:
        return await self._user(self._far)

    def cpu(self) -> float:
        return self._near.cpu() + self._far.cpu()

    def memory(self) -> int:
        return self._near.memory() + self._far.memory()

    @property
    def near_name(self) -> str:
        return self._near.server.name

    def kinds(self) -> dict[str, Worker]:
        return {
            "invite and reject, until the inviter sees it": self._reject,
            "join over federation": self._join,
            "leave over federation, until the others see it": self._leave,
            "local join": self._local_join,
            "send": self._send,
            "send, until a reader has it by /sync": self._delivery,
        }

    async def _reject(self, count: int, _: int) -> list[Operation]:
        alice, bob = await self.near(), await self.far()
        room = await alice.create_room("private_chat")
        await alice.sync(0)

        async def reject() -> None:
            await alice.invite(room, bob.id)
            await bob.leave(room)
            await alice.until(room, is_member(bob.id, "leave"))

        return [reject] * count

    async def _joins(self, count: int) -> tuple[User, User, list[str]]:
        alice, bob = await self.near(), await self.far()
        return alice, bob, [await alice.create_room() for _ in range(count)]

    async def _join(self, count: int, _: int) -> list[Operation]:
        _, bob, rooms = await self._joins(count)
        return [lambda room=room: bob.join(room, self.near_name) for room in rooms]

    async def _leave(self, count: int, _: int) -> list[Operation]:
        alice, bob, rooms = await self._joins(count)
        for room in rooms:
            await bob.join(room, self.near_name)
        await alice.sync(0)

        async def leave(room: str) -> None:
            await bob.leave(room)
            await alice.until(room, is_member(bob.id, "leave"))

        return [lambda room=room: leave(room) for room in rooms]

    async def _local_join(self, count: int, _: int) -> list[Operation]:
        alice, carol = await self.near(), await self.near()
        rooms = [await alice.create_room() for _ in range(count)]
        return [lambda room=room: carol.join(room, self.near_name) for room in rooms]

    async def _send(self, count: int, _: int) -> list[Operation]:
        alice = await self.near()
        room = await alice.create_room()

        async def send() -> None:
            await alice.say(room)

        return [send] * (count * 5)

    async def _delivery(self, count: int, _: int) -> list[Operation]:
        alice, carol = await self.near(), await self.near()
        room = await alice.create_room()
        await carol.join(room, self.near_name)
        await carol.sync(0)

        async def deliver() -> None:
            # A poll is open before the message is sent.
            poll = asyncio.create_task(carol.sync())
            await asyncio.sleep(0.005)
            event_id = await alice.say(room)
            answer = await poll
            while event_id not in json.dumps(answer):
                answer = await carol.sync()

        return [deliver] * count

    async def run(self, make: Worker, at_once: int) -> Phase:
        workers = [await make(OPERATIONS[at_once], n) for n in range(at_once)]
        took: list[float] = []

        async def work(operations: list[Operation]) -> None:
            for operation in operations:
                began = time.perf_counter()
                await operation()
                took.append(time.perf_counter() - began)

        cpu, began = self.cpu(), time.perf_counter()
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
            for operations in workers:
                group.create_task(work(operations))
        whole, cpu = time.perf_counter() - began, self.cpu() - cpu
        ordered = sorted(seconds * 1000 for seconds in took)
        return Phase(
            operations=len(took),
            p50=statistics.median(ordered),
            p99=ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
            per_second=len(took) / whole,
            cpu=cpu / len(took) * 1000,
        )


async def measure(kind: type[Server], folder: Path, authority: Authority) -> Found:
    found = Found()
    async with AsyncExitStack() as stack:
        servers = []
        for number in range(2):
            with reserve_port() as holder:
                port = port_of(holder)
            server = kind(
                folder / f"{kind.kind}-{number}", authority, f"localhost:{port}", port, "membership"
            )
            servers.append(await stack.enter_async_context(Measured(server)))
        pair = Pair(*servers, stack)
        for name, make in pair.kinds().items():
            found.phases[name] = {}
            for at_once in CONCURRENCY:
                note(f"{kind.kind}: {name}, {at_once} at once")
                found.phases[name][at_once] = await pair.run(make, at_once)
        found.memory = pair.memory()
    return found


def note(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def table(found: dict[str, Found]) -> str:
    lines = ["operation | at once | server | p50 ms | p99 ms | per s | CPU s per 1,000"]
    lines.append("---|--:|---|--:|--:|--:|--:")
    for name in next(iter(found.values())).phases:
        for at_once in CONCURRENCY:
            for kind, figures in found.items():
                phase = figures.phases[name][at_once]
                lines.append(
                    f"{name} | {at_once} | {kind} | {phase.p50:.1f} | {phase.p99:.1f}"
                    f" | {phase.per_second:.1f} | {phase.cpu:.2f}"
                )
    for kind, figures in found.items():
        lines.append(f"memory of both at the end | | {kind} | {figures.memory / MB:.0f} MB | | |")
    return "\n".join(f"| {line} |" for line in lines)


def verdicts(found: dict[str, Found]) -> list[tuple[str, bool]]:
    """Each target, with the figure that it is held against."""
    ours = found["exeunt"]
    reject, send = "invite and reject, until the inviter sees it", "send"
    first, busy = ours.phases[reject][1], ours.phases[reject][4]
    lines = [
        (f"reject p50 {first.p50:.1f} ms, at most {TARGET_REJECT_P50_MS}",
         first.p50 <= TARGET_REJECT_P50_MS),
        (f"reject CPU {busy.cpu:.2f} s per 1,000, 4 at once, at most {TARGET_REJECT_CPU}",
         busy.cpu <= TARGET_REJECT_CPU),
    ]
    if theirs := found.get("synapse"):
        for name, target in ((reject, TARGET_REJECT_RATE), (send, TARGET_SEND_RATE)):
            ratio = ours.phases[name][4].per_second / theirs.phases[name][4].per_second
            text = f"{name}: {ratio:.1f} times Synapse's rate, 4 at once, at least {target}"
            lines.append((text, ratio >= target))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the CPU is over the target")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--alone", action="store_true", help="without Synapse")
    options = parser.parse_args()

    busy = os.getloadavg()[0]
    kinds = [Exeunt] if options.alone else [Exeunt, Synapse]

    async def all_kinds() -> dict[str, Found]:
        with tempfile.TemporaryDirectory(prefix="exeunt-bench-") as folder:
            authority = Authority(Path(folder) / "ca")
            return {kind.kind: await measure(kind, Path(folder), authority) for kind in kinds}

    found = asyncio.run(all_kinds())
    print(table(found))
    print(f"\n{os.cpu_count()} cores, load average {busy:.1f} at the start")
    for text, held in verdicts(found):
        print(f"{'pass' if held else 'miss'}: {text}")
    if options.json:
        record = {
            "machine": {"cores": os.cpu_count(), "load_average": busy},
            "servers": {kind: asdict(figures) for kind, figures in found.items()},
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    busy = found["exeunt"].phases["invite and reject, until the inviter sees it"][4]
    return 1 if options.check and busy.cpu > TARGET_REJECT_CPU else 0


if __name__ == "__main__":
    sys.exit(main())
