"""What it costs to join a large room over federation: time, and the most memory of the process.

A scripted peer serves a room whose members are on many servers, some of which are gone for good:
their keys are had from the peer alone. `--check` asserts the budget on memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import quote

import events
from aiohttp import web
from ca import Authority
from events import Json
from link import port_of, reserve_port
from process import Measured, session
from servers import Exeunt
from signedjson.key import encode_verify_key_base64, generate_signing_key, get_verify_key
from signedjson.sign import sign_json

VERSION = "11"
SERVERS = 20
#: Of those, how many nobody can reach.
GONE = 4
DEADLINE = 600.0
MB = 1_000_000
BUDGET_PEAK = 150 * MB
#: Bytes of the answer that are written at a time.
PIECE = 64 * 1024


class Peer:
    """Every server of the room but the one that is measured; the first one serves the join."""

    def __init__(self, names: list[str], members: int) -> None:
        self.names = names
        self._key = generate_signing_key("bench")
        self._room_id = f"!large:{names[0]}"
        self._now = int(time.time() * 1000)
        self._depth = 0
        self._last: list[str] = []
        self._state: list[Json] = []
        self._auth: dict[str, str] = {}
        self._build(members)
        self.body = json.dumps(
            {
                "origin": names[0],
                "members_omitted": False,
                "servers_in_room": names,
                "state": self._state,
                "auth_chain": [event for event in self._state if event["type"] != "m.room.member"],
            }
        ).encode()

    @property
    def room_id(self) -> str:
        return self._room_id

    def _build(self, members: int) -> None:
        founder = f"@founder:{self.names[0]}"
        content = {"room_version": VERSION}
        self._auth["create"] = self._add(founder, "m.room.create", "", content, ())
        content = {"membership": "join"}
        self._auth["founder"] = self._add(founder, "m.room.member", founder, content, ("create",))
        content = {"users": {founder: 100}}
        by = ("create", "founder")
        self._auth["levels"] = self._add(founder, "m.room.power_levels", "", content, by)
        by = ("create", "founder", "levels")
        content = {"join_rule": "public"}
        self._auth["rules"] = self._add(founder, "m.room.join_rules", "", content, by)
        for number in range(members - 1):
            user = f"@member{number}:{self.names[number % len(self.names)]}"
            avatar = f"mxc://{self.names[0]}/{number:048}"
            content = {
                "membership": "join",
                "displayname": f"Member number {number}",
                "avatar_url": avatar,
            }
            self._add(user, "m.room.member", user, content, ("create", "levels", "rules"))

    def _add(
        self, sender: str, kind: str, key: str, content: Json, auth: tuple[str, ...]
    ) -> str:
        self._depth += 1
        event = {
            "type": kind,
            "room_id": self._room_id,
            "sender": sender,
            "state_key": key,
            "content": content,
            "depth": self._depth,
            "origin_server_ts": self._now,
            "prev_events": self._last,
            "auth_events": [self._auth[name] for name in auth],
        }
        event = events.finish(event, VERSION, sender.split(":", 1)[1], self._key)
        event_id = events.event_id(event, VERSION)
        self._last = [event_id]
        self._state.append(event)
        return event_id

    async def listen(self, stack: AsyncExitStack, name: str, authority: Authority) -> None:
        application = web.Application(client_max_size=MB)
        application.router.add_get("/_matrix/key/v2/server", self._keys_of(name))
        application.router.add_post("/_matrix/key/v2/query", self._query)
        federation = "/_matrix/federation"
        application.router.add_get(f"{federation}/v1/make_join/{{room}}/{{user}}", self._make)
        application.router.add_put(f"{federation}/v2/send_join/{{room}}/{{event}}", self._send)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        port = int(name.rpartition(":")[2])
        context = authority.leaf(f"peer-{port}").server_context()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()

    def _document(self, name: str) -> Json:
        key = {"key": encode_verify_key_base64(get_verify_key(self._key))}
        document = {
            "server_name": name,
            "valid_until_ts": self._now + 24 * 3600 * 1000,
            "verify_keys": {f"{self._key.alg}:{self._key.version}": key},
            "old_verify_keys": {},
        }
        return sign_json(document, name, self._key)

    def _keys_of(self, name: str) -> web.Handler:
        async def keys(_: web.Request) -> web.Response:
            return web.json_response(self._document(name))

        return keys

    async def _query(self, request: web.Request) -> web.Response:
        wanted = [name for name in (await request.json())["server_keys"] if name in self.names]
        found = [sign_json(self._document(name), self.names[0], self._key) for name in wanted]
        return web.json_response({"server_keys": found})

    async def _make(self, request: web.Request) -> web.Response:
        user = request.match_info["user"]
        event = {
            "type": "m.room.member",
            "room_id": self._room_id,
            "sender": user,
            "state_key": user,
            "content": {"membership": "join"},
            "depth": self._depth + 1,
            "origin_server_ts": self._now,
            "prev_events": self._last,
            "auth_events": [self._auth[name] for name in ("create", "levels", "rules")],
        }
        return web.json_response({"room_version": VERSION, "event": event})

    async def _send(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        for start in range(0, len(self.body), PIECE):
            await answer.write(self.body[start : start + PIECE])
        await answer.write_eof()
        return answer


async def measure(folder: Path, members: int) -> Json:
    authority = Authority(folder / "ca")
    async with AsyncExitStack() as stack:
        holders = [stack.enter_context(reserve_port()) for _ in range(SERVERS + 1)]
        own, *ports = (port_of(holder) for holder in holders)
        names = [f"localhost:{port}" for port in ports]
        note(f"a room of {members} members on {SERVERS} servers")
        peer = Peer(names, members)
        for holder in holders:
            holder.close()
        for name in names[: SERVERS - GONE]:
            await peer.listen(stack, name, authority)
        server = Exeunt(folder / "exeunt", authority, f"localhost:{own}", own, secret="join bench")
        process = await stack.enter_async_context(Measured(server))
        http = await stack.enter_async_context(session(server))
        register = "/_matrix/client/v3/register"
        body = {"username": "joiner", "password": "correct horse battery staple"}
        async with http.post(register, json=body) as answer:
            auth = {"type": "m.login.dummy", "session": (await answer.json())["session"]}
        async with http.post(register, json=body | {"auth": auth}) as answer:
            token = (await answer.json())["access_token"]
        idle = process.memory()
        # What registering took at its most (a password is hashed in much memory) is not the join's.
        process.forget_peak()
        headers = {"Authorization": f"Bearer {token}"}
        room = quote(peer.room_id, safe="")
        began, cpu = time.monotonic(), process.cpu()
        path = f"/_matrix/client/v3/join/{room}?server_name={quote(names[0], safe='')}"
        async with asyncio.timeout(DEADLINE), http.post(
            path, json={}, headers=headers, timeout=DEADLINE
        ) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {await answer.text()}\n{server.log_tail()}")
        seconds, cpu = time.monotonic() - began, process.cpu() - cpu
        peak, settled = process.peak_memory(), process.memory()
        path = f"/_matrix/client/v3/rooms/{room}/joined_members"
        async with http.get(path, headers=headers) as answer:
            joined = len((await answer.json())["joined"])
        if joined != members + 1:
            raise RuntimeError(f"{joined} of {members + 1} members\n{server.log_tail()}")
    return {
        "members": members,
        "answer_bytes": len(peer.body),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "idle_memory": idle,
        "peak_memory": peak,
        "settled_memory": settled,
    }


def note(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--check", action="store_true", help="assert the budget on memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="exeunt-join-") as folder:
        found = asyncio.run(measure(Path(folder), arguments.members))
    print(json.dumps(found, indent=2))
    if arguments.check and found["peak_memory"] > BUDGET_PEAK:
        sys.exit(f"the peak is over {BUDGET_PEAK / MB:.0f} MB")


if __name__ == "__main__":
    main()
