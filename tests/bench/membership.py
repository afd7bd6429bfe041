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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ca import Authority
from connection import Connection
from link import port_of, reserve_port
from process import Measured
from servers import Exeunt, Server, Synapse

CONCURRENCY = (1, 4, 16)
#: Operations of each worker, by how many work at once.
OPERATIONS = {1: 60, 4: 25, 16: 10}
#: One phase ends within this many seconds, or the run fails.
DEADLINE = 300.0
SYNC_TIMEOUT_MS = 20_000
MB = 1_000_000

REJECT = "invite and reject, until the inviter sees it"
SEND = "send"
TARGET_REJECT_P50_MS = 15.0
TARGET_REJECT_CPU = 5.0
TARGET_REJECT_RATE = 25.0
TARGET_SEND_RATE = 10.0


class User:
    """A logged-in user, who knows how far they have synced."""

    def __init__(self, connection: Connection, id: str, token: str) -> None:
        self._connection = connection
        self._token = token
        self.id = id
        self._since: str | None = None
        self._sent = 0

    @classmethod
    def register(cls, connection: Connection, name: str) -> User:
        path = "/_matrix/client/v3/register"
        body = {"username": name, "password": "correct horse battery staple"}
        _, asked = connection.ask("POST", path, body)
        auth = {"type": "m.login.dummy", "session": asked["session"]}
        _, made = connection.ask("POST", path, body | {"auth": auth})
        return cls(connection, made["user_id"], made["access_token"])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        self._send(method, path, body)
        return self._receive(path)

    def _send(self, method: str, path: str, body: Any = None) -> None:
        self._connection.send(method, f"/_matrix/client/v3{path}", body, self._token)

    def _receive(self, path: str) -> Any:
        status, answer = self._connection.receive()
        if status != 200:
            raise RuntimeError(f"{path}: {status} {answer}")
        return answer

    def create_room(self, preset: str = "public_chat") -> str:
        body = {"preset": preset, "room_version": "11"}
        return self.ask("POST", "/createRoom", body)["room_id"]

    def invite(self, room: str, user: str) -> None:
        self.ask("POST", f"/rooms/{quote(room)}/invite", {"user_id": user})

    def join(self, room: str, via: str) -> None:
        self.ask("POST", f"/join/{quote(room)}?via={via}&server_name={via}", {})

    def leave(self, room: str) -> None:
        self.ask("POST", f"/rooms/{quote(room)}/leave", {})

    def say(self, room: str) -> str:
        self._sent += 1
        path = f"/rooms/{quote(room)}/send/m.room.message/{self._sent}"
        body = {"msgtype": "m.text", "body": "The quick brown fox jumps over the lazy dog."}
        return self.ask("PUT", path, body)["event_id"]

    def begin_sync(self, timeout_ms: int = SYNC_TIMEOUT_MS) -> None:
        query = f"?timeout={timeout_ms}" + (f"&since={self._since}" if self._since else "")
        self._send("GET", f"/sync{query}")

    def end_sync(self) -> Any:
        answer = self._receive("/sync")
        self._since = answer["next_batch"]
        return answer

    def sync(self, timeout_ms: int = SYNC_TIMEOUT_MS) -> Any:
        self.begin_sync(timeout_ms)
        return self.end_sync()

    def until(self, room: str, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Syncs until the room's timeline has such an event."""
        while True:
            joined = self.sync().get("rooms", {}).get("join", {})
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
    #: The same of the client.
    client: float


@dataclass
class Found:
    phases: dict[str, dict[int, Phase]] = field(default_factory=dict)
    #: Resident bytes of both servers at the end.
    memory: int = 0


Operation = Callable[[], None]
#: Makes what the operations of a worker need; called before the clock runs.
Worker = Callable[[int], list[Operation]]


class Pair:
    """Two servers of one kind, whose users meet over federation. Blocks."""

    def __init__(self, near: Measured, far: Measured) -> None:
        self._near, self._far = near, far
        self._users = 0

    def _user(self, server: Measured) -> User:
        self._users += 1
        return User.register(Connection(server.server), f"user{self._users}")

    def near(self) -> User:
        return self._user(self._near)

    def far(self) -> User:
        return self._user(self._far)

    def cpu(self) -> float:
        return self._near.cpu() + self._far.cpu()

    def memory(self) -> int:
        return self._near.memory() + self._far.memory()

    @property
    def near_name(self) -> str:
        return self._near.server.name

    def kinds(self) -> dict[str, Worker]:
        return {
            REJECT: self._reject,
            "join over federation": self._join,
            "leave over federation, until the others see it": self._leave,
            "local join": self._local_join,
            SEND: self._send,
            "send, until a reader has it by /sync": self._delivery,
        }

    def _reject(self, count: int) -> list[Operation]:
        alice, bob = self.near(), self.far()
        room = alice.create_room("private_chat")
        alice.sync(0)

        def reject() -> None:
            alice.invite(room, bob.id)
            bob.leave(room)
            alice.until(room, is_member(bob.id, "leave"))

        return [reject] * count

    def _joins(self, count: int) -> tuple[User, User, list[str]]:
        alice, bob = self.near(), self.far()
        return alice, bob, [alice.create_room() for _ in range(count)]

    def _join(self, count: int) -> list[Operation]:
        _, bob, rooms = self._joins(count)
        return [lambda room=room: bob.join(room, self.near_name) for room in rooms]

    def _leave(self, count: int) -> list[Operation]:
        alice, bob, rooms = self._joins(count)
        for room in rooms:
            bob.join(room, self.near_name)
        alice.sync(0)

        def leave(room: str) -> None:
            bob.leave(room)
            alice.until(room, is_member(bob.id, "leave"))

        return [lambda room=room: leave(room) for room in rooms]

    def _local_join(self, count: int) -> list[Operation]:
        alice, carol = self.near(), self.near()
        rooms = [alice.create_room() for _ in range(count)]
        return [lambda room=room: carol.join(room, self.near_name) for room in rooms]

    def _send(self, count: int) -> list[Operation]:
        alice = self.near()
        room = alice.create_room()

        def send() -> None:
            alice.say(room)

        return [send] * (count * 5)

    def _delivery(self, count: int) -> list[Operation]:
        alice, carol = self.near(), self.near()
        room = alice.create_room()
        carol.join(room, self.near_name)
        carol.sync(0)

        def deliver() -> None:
            # A poll is open before the message is sent.
            carol.begin_sync()
            time.sleep(0.005)
            event_id = alice.say(room)
            answer = carol.end_sync()
            while event_id not in json.dumps(answer):
                answer = carol.sync()

        return [deliver] * count

    def run(self, make: Worker, at_once: int, times: int) -> Phase:
        workers = [make(OPERATIONS[at_once] * times) for _ in range(at_once)]

        def work(operations: list[Operation]) -> list[float]:
            took = []
            for operation in operations:
                began = time.perf_counter()
                operation()
                took.append(time.perf_counter() - began)
            return took

        with ThreadPoolExecutor(at_once) as pool:
            cpu, client, began = self.cpu(), time.process_time(), time.perf_counter()
            took = [seconds for one in pool.map(work, workers) for seconds in one]
            whole = time.perf_counter() - began
            cpu, client = self.cpu() - cpu, time.process_time() - client
        ordered = sorted(seconds * 1000 for seconds in took)
        return Phase(
            operations=len(took),
            p50=statistics.median(ordered),
            p99=ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
            per_second=len(took) / whole,
            cpu=cpu / len(took) * 1000,
            client=client / len(took) * 1000,
        )


async def measure(
    kind: type[Server], folder: Path, authority: Authority, only: str, times: int
) -> Found:
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
        pair = Pair(*servers)
        for name, make in pair.kinds().items():
            if only not in name:
                continue
            found.phases[name] = {}
            for at_once in CONCURRENCY:
                note(f"{kind.kind}: {name}, {at_once} at once")
                async with asyncio.timeout(DEADLINE):
                    phase = await asyncio.to_thread(pair.run, make, at_once, times)
                found.phases[name][at_once] = phase
        found.memory = pair.memory()
    return found


def note(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def table(found: dict[str, Found]) -> str:
    """A row for each kind and concurrency, with Synapse's figures and the ratios where it ran."""
    of_each = "p50 | p99 | per s | CPU s per 1,000 | the client's"
    head = " | ".join(["operation | at once", *(f"{kind}: {of_each}" for kind in found)])
    if compared := "synapse" in found:
        head += " | rate | CPU"
    lines = [head, "---|" + "|".join(["--:"] * head.count("|"))]
    for name, by_count in found["exeunt"].phases.items():
        for at_once, ours in by_count.items():
            line = f"{name} | {at_once}"
            for figures in found.values():
                phase = figures.phases[name][at_once]
                line += f" | {phase.p50:.1f} ms | {phase.p99:.0f} ms | {phase.per_second:.1f}"
                line += f" | {phase.cpu:.2f} | {phase.client:.2f}"
            if compared:
                theirs = found["synapse"].phases[name][at_once]
                line += f" | {ours.per_second / theirs.per_second:.0f} x"
                line += f" | {theirs.cpu / ours.cpu:.0f} x"
            lines.append(line)
    memory = [f"{kind} {figures.memory / MB:.0f} MB" for kind, figures in found.items()]
    rows = [f"| {line} |" for line in lines]
    return "\n".join([*rows, "", f"memory of both servers at the end: {', '.join(memory)}"])


def judge(found: dict[str, Found]) -> list[tuple[str, bool]]:
    """Each target that this run can tell about, with the figure that it is held against."""
    ours, theirs = found["exeunt"].phases, found.get("synapse", Found()).phases
    lines = []
    if REJECT in ours:
        p50, cpu = ours[REJECT][1].p50, ours[REJECT][4].cpu
        text = f"{REJECT}: p50 {p50:.1f} ms, at most {TARGET_REJECT_P50_MS}"
        lines.append((text, p50 <= TARGET_REJECT_P50_MS))
        text = f"{REJECT}: {cpu:.2f} CPU s per 1,000, 4 at once, at most {TARGET_REJECT_CPU}"
        lines.append((text, cpu <= TARGET_REJECT_CPU))
    for name, target in ((REJECT, TARGET_REJECT_RATE), (SEND, TARGET_SEND_RATE)):
        if name in ours and name in theirs:
            ratio = ours[name][4].per_second / theirs[name][4].per_second
            text = f"{name}: {ratio:.1f} times Synapse's rate, 4 at once, at least {target}"
            lines.append((text, ratio >= target))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the CPU is over the target")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--alone", action="store_true", help="without Synapse")
    parser.add_argument("--only", default="", metavar="TEXT", help="kinds whose name has it")
    parser.add_argument("--times", type=int, default=1, help="so many times the operations")
    options = parser.parse_args()

    busy = os.getloadavg()[0]
    kinds = [Exeunt] if options.alone else [Exeunt, Synapse]

    async def all_kinds() -> dict[str, Found]:
        with tempfile.TemporaryDirectory(prefix="exeunt-bench-") as folder:
            authority = Authority(Path(folder) / "ca")
            found = {}
            for kind in kinds:
                found[kind.kind] = await measure(
                    kind, Path(folder), authority, options.only, options.times
                )
            return found

    found = asyncio.run(all_kinds())
    print(table(found))
    print(f"\n{os.cpu_count()} cores, load average {busy:.1f} at the start")
    for text, held in judge(found):
        print(f"{'pass' if held else 'miss'}: {text}")
    if options.json:
        record = {
            "machine": {"cores": os.cpu_count(), "load_average": busy},
            "servers": {kind: asdict(figures) for kind, figures in found.items()},
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    rejects = found["exeunt"].phases.get(REJECT)
    return 1 if options.check and rejects and rejects[4].cpu > TARGET_REJECT_CPU else 0


if __name__ == "__main__":
    sys.exit(main())
