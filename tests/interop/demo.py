"""The demonstration: two servers, a cut link, a kill -9, and a rejection that arrives all the same.

Prints a timeline as it happens, and exits 0 only if all of it was seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from ca import Authority
from client import User
from servers import Exeunt, Server, ServerFailed, Synapse
from stage import Stage

#: A client that rejects an invite has its answer within this many seconds, link or no link.
AT_ONCE = 3.0
#: The rejection reaches the inviter within this many seconds of the link's return.
BACK_WITHIN = 60.0


class Timeline:
    """Prints what happens, with seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def note(self, text: str) -> None:
        print(f"  {time.monotonic() - self._start:6.2f} s  {text}", flush=True)


async def queued_departures(server: Server) -> int:
    """Departures that wait in the stopped server's queue, as its own command lists them."""
    output = await server.run("departures", "--json")
    return len([json.loads(line) for line in output.splitlines()])


async def play(stage: Stage, peer: str, version: str, note) -> None:
    note(f"starting A ({peer}) and B (exeunt), TLS verified against a fresh CA")
    a = await stage.add(peer)
    b = await stage.add(Exeunt.kind)
    note(f"A is {a.name}, B is {b.name}")

    alice = await User.create(a, "alice")
    bob = await User.create(b, "bob")
    stage.keep(alice)
    stage.keep(bob)
    room = await alice.create_room(version)
    await alice.invite(room, bob.id)
    note(f"{alice.id} made {room} (version {version}) and invited {bob.id}")
    await bob.wait_for_invite(room)
    note("bob sees the invite in /sync")

    await a.link.cut()
    note("the link from B to A is cut")
    asked = time.monotonic()
    await bob.leave(room)
    took = time.monotonic() - asked
    if took > AT_ONCE:
        raise AssertionError(f"bob waited {took:.1f} s for his answer")
    note(f"bob rejects, and has his 200 after {took:.2f} s")
    await bob.wait_for_leave(room)
    note("bob's /sync has the room under leave")
    before = await alice.membership(room, bob.id)
    if before != "invite":
        raise AssertionError(f"A shows {before} although nothing can have reached it")
    note("A still shows: invite")

    await b.kill9()
    note("B is killed with kill -9")
    waiting = await queued_departures(b)
    if waiting != 1:
        raise AssertionError(f"the queue on disk holds {waiting} departures, not one")
    note("B's store holds one departure (exeunt departures)")
    await b.start()
    note("B is started again")
    await a.link.restore()
    note("the link is back")
    await alice.wait_for_membership(room, bob.id, "leave", BACK_WITHIN)
    note("A shows: leave. The departure was not lost")

    await alice.invite(room, bob.id)
    await bob.wait_for_invite(room)
    note("alice invites bob again, and bob sees it")
    await bob.join(room)
    await alice.wait_for_membership(room, bob.id, "join")
    note("bob joins; A shows: join")
    await bob.wait_for_event(await alice.say(room, "hello from A"))
    note("alice's message reaches bob")
    await alice.wait_for_event(await bob.say(room, "hello from B"))
    note("bob's message reaches alice")
    await bob.leave(room)
    await alice.wait_for_membership(room, bob.id, "leave")
    note("bob leaves; A shows: leave")


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=[Exeunt.kind, Synapse.kind], default=Exeunt.kind)
    parser.add_argument("--room-version", default="12")
    args = parser.parse_args()
    timeline = Timeline()
    with tempfile.TemporaryDirectory(prefix="exeunt-demo-") as folder:
        stage = Stage(Path(folder) / "servers", Authority(Path(folder) / "ca"))
        try:
            await play(stage, args.peer, args.room_version, timeline.note)
            for user in stage.users:
                await user.close()
        except (AssertionError, ServerFailed) as failure:
            print(f"\nNot seen: {failure}", file=sys.stderr)
            for server in stage.servers:
                print(f"\n{server.log}:\n{server.log_tail()}", file=sys.stderr)
            return 1
        finally:
            await stage.close()
    print("\nAll of it was seen: invited, rejected while cut off, survived kill -9, delivered,")
    print("re-invited, joined, talked both ways, left.")
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
