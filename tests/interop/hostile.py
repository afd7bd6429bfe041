"""A scripted federation server: it invites honestly, and then answers as a test tells it to.

It keeps every request that it gets, and can tell whether the victim's signature was seen on
anything but the membership event that its user asked for.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
import events
from aiohttp import web
from ca import Authority
from client import eventually
from events import Json
from servers import Server
from signedjson.key import (
    decode_verify_key_bytes,
    encode_verify_key_base64,
    generate_signing_key,
    get_verify_key,
)
from signedjson.sign import SignatureVerifyException, sign_json, verify_signed_json
from signedjson.types import VerifyKey
from unpaddedbase64 import decode_base64
from yarl import URL

REQUEST_DEADLINE = 30.0
LARGEST_REQUEST = 16 * 1024 * 1024
KEY_LIFETIME_MS = 24 * 3600 * 1000
CLOCK_TOLERANCE_MS = 10 * 60 * 1000
MAX_DEPTH = 2**53 - 1
MAX_PREV_EVENTS = 20
MAX_AUTH_EVENTS = 10

FEDERATION = "/_matrix/federation"
ENDPOINTS = tuple(
    (name, method, re.compile(pattern))
    for name, method, pattern in (
        ("keys", "GET", r"/_matrix/key/v2/server(/[^/]*)?"),
        ("version", "GET", rf"{FEDERATION}/v1/version"),
        ("make_leave", "GET", rf"{FEDERATION}/v1/make_leave/([^/]+)/([^/]+)"),
        ("send_leave_v1", "PUT", rf"{FEDERATION}/v1/send_leave/([^/]+)/([^/]+)"),
        ("send_leave_v2", "PUT", rf"{FEDERATION}/v2/send_leave/([^/]+)/([^/]+)"),
        ("make_join", "GET", rf"{FEDERATION}/v1/make_join/([^/]+)/([^/]+)"),
        ("send_join_v1", "PUT", rf"{FEDERATION}/v1/send_join/([^/]+)/([^/]+)"),
        ("send_join_v2", "PUT", rf"{FEDERATION}/v2/send_join/([^/]+)/([^/]+)"),
        ("make_knock", "GET", rf"{FEDERATION}/v1/make_knock/([^/]+)/([^/]+)"),
        ("send_knock", "PUT", rf"{FEDERATION}/v1/send_knock/([^/]+)/([^/]+)"),
        ("invite", "PUT", rf"{FEDERATION}/v[12]/invite/([^/]+)/([^/]+)"),
        ("send", "PUT", rf"{FEDERATION}/v1/send/([^/]+)"),
        ("trap", "*", r"/trap/.*"),
    )
)
UNKNOWN_ENDPOINT = "unknown"
#: Where redirects of this server point; nobody must ever come here.
TRAP = "/trap/"

_SIGNED_KEYS = {
    "auth_events",
    "content",
    "depth",
    "hashes",
    "origin_server_ts",
    "prev_events",
    "room_id",
    "sender",
    "signatures",
    "state_key",
    "type",
}
_OPTIONAL_KEYS = {"origin", "unsigned"}
_CONTENT_KEYS = {
    "leave": {"membership", "reason"},
    "join": {"membership", "reason", "displayname", "avatar_url"},
    "knock": {"membership", "reason", "displayname", "avatar_url"},
}


@dataclass
class Room:
    """A room that only the hostile server resides in, and its one invitation, if there is one."""

    version: str
    id: str
    state: list[Json]
    #: Whom the room is for: invited, or about to knock.
    user: str
    invite: Json | None

    @property
    def graph(self) -> list[Json]:
        return self.state if self.invite is None else [*self.state, self.invite]

    def ids(self, *wanted: tuple[str, str]) -> list[str]:
        """The ids of the state events with these types and state keys."""
        return [
            events.event_id(event, self.version)
            for event in self.graph
            if (event["type"], event["state_key"]) in wanted
        ]

    def template(self, membership: str) -> Json:
        """An honest answer to make_leave, make_join or make_knock."""
        wanted = [("m.room.power_levels", ""), ("m.room.member", self.user)]
        if not events.room_ids_are_hashes(self.version):
            wanted.append(("m.room.create", ""))
        if membership != "leave":
            wanted.append(("m.room.join_rules", ""))
        event = {
            "type": "m.room.member",
            "room_id": self.id,
            "sender": self.user,
            "state_key": self.user,
            "content": {"membership": membership},
            "depth": self.graph[-1]["depth"] + 1,
            "origin": self.user.split(":", 1)[1],
            "origin_server_ts": _now_ms(),
            "prev_events": [events.event_id(self.graph[-1], self.version)],
            "auth_events": self.ids(*wanted),
        }
        return {"room_version": self.version, "event": event}


@dataclass
class Call:
    """One request to the hostile server."""

    endpoint: str
    request: web.Request
    arguments: tuple[str, ...]
    body: Any
    hostile: Hostile = field(repr=False)

    def honest(self) -> Any:
        """What a well-behaved server would answer."""
        return self.hostile.honest_answer(self)


Behaviour = Callable[[Call], Awaitable[web.StreamResponse]]


class Hostile:
    """The server; `script` maps endpoint names to behaviours, the rest is answered honestly."""

    def __init__(self, authority: Authority, port: int) -> None:
        self._leaf = authority.leaf(f"hostile-{port}")
        self._client_context = authority.client_context()
        self._port = port
        self.name = f"localhost:{port}"
        self.user = f"@mallory:{self.name}"
        self.script: dict[str, Behaviour] = {}
        self.calls: list[Call] = []
        self.closing = asyncio.Event()
        self._key = generate_signing_key("hostile")
        self._rooms: dict[str, Room] = {}
        self._answers: list[Any] = []
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        application = web.Application(client_max_size=LARGEST_REQUEST)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(
            self._runner,
            "127.0.0.1",
            self._port,
            ssl_context=self._leaf.server_context(),
            reuse_address=True,
        ).start()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._client_context),
            timeout=aiohttp.ClientTimeout(total=REQUEST_DEADLINE),
        )

    async def stop(self) -> None:
        self.closing.set()
        await self._session.close()
        await self._runner.cleanup()

    def called(self, *endpoints: str) -> list[Call]:
        return [call for call in self.calls if call.endpoint in endpoints]

    async def wait_for_call(self, endpoint: str, deadline: float) -> None:
        async def was_called() -> bool:
            return bool(self.called(endpoint))

        await eventually(was_called, f"a call of {endpoint}", deadline)

    async def invite(self, server: Server, user: str, version: str) -> Room:
        """Makes a room and invites `user` of `server` to it, all of it correctly signed."""
        room = self._create_room(user, version)
        self._rooms[room.id] = room
        event_id = events.event_id(room.invite, version)
        body = {
            "room_version": version,
            "event": room.invite,
            "invite_room_state": room.state,
        }
        path = f"{FEDERATION}/v2/invite/{quote(room.id, safe='')}/{quote(event_id, safe='')}"
        status, answer = await self._request("PUT", server.name, path, body)
        assert status == 200, f"{server.name} refused the invite: {status} {answer}"
        self._answers.append(answer)
        return room

    def knockable(self, user: str, version: str) -> Room:
        """Makes a room upon which `user` may knock."""
        room = self._create_room(user, version, "knock")
        self._rooms[room.id] = room
        return room

    async def objections(self, server: Server, room: Room, *memberships: str) -> list[str]:
        """Every use of the server's signing key that its user's wishes do not explain.

        The user wants these `memberships` in the one `room`; beyond those events the server
        signs the invite and its requests.
        """
        keys = await self._keys_of(server)
        judge = _Judge(server.name, keys, room, memberships)
        for call in self.calls:
            judge.request(self.name, call)
        for body in (*(call.body for call in self.calls), *self._answers):
            for signed in _signed_by(server.name, body):
                judge.signed(signed)
        return judge.objections

    def honest_answer(self, call: Call) -> Any:
        if call.endpoint == "keys":
            return self._signed_keys()
        if call.endpoint == "version":
            return {"server": {"name": "hostile", "version": "1"}}
        if call.endpoint == "send":
            return {"pdus": {}}
        room = self._rooms.get(call.arguments[0]) if call.arguments else None
        if room is None:
            return None
        if call.endpoint in ("make_leave", "make_join", "make_knock"):
            return room.template(call.endpoint.removeprefix("make_"))
        joined = {
            "origin": self.name,
            "state": room.graph,
            "auth_chain": room.graph,
            "event": call.body,
            "members_omitted": False,
        }
        return {
            "send_leave_v2": {},
            "send_leave_v1": [200, {}],
            "send_join_v2": joined,
            "send_join_v1": [200, joined],
            "send_knock": {"knock_room_state": room.state},
        }.get(call.endpoint)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        try:
            body = json.loads(text) if text else None
        except ValueError:
            body = text
        endpoint, arguments = _match(request.method, request.rel_url.raw_path)
        call = Call(endpoint, request, arguments, body, self)
        self.calls.append(call)
        behaviour = self.script.get(endpoint, _honestly)
        return await behaviour(call)

    def _create_room(self, user: str, version: str, join_rule: str = "invite") -> Room:
        hashed_id = events.room_ids_are_hashes(version)
        graph: list[Json] = []
        room_id = None if hashed_id else f"!{_now_ms()}-{len(self._rooms)}:{self.name}"

        def add(kind: str, state_key: str, content: Json, auth: list[Json]) -> Json:
            event = {
                "type": kind,
                "state_key": state_key,
                "sender": self.user,
                "content": content,
                "depth": len(graph) + 1,
                "origin_server_ts": _now_ms(),
                "prev_events": [events.event_id(last, version) for last in graph[-1:]],
                "auth_events": [
                    events.event_id(parent, version)
                    for parent in auth
                    if not (hashed_id and parent["type"] == "m.room.create")
                ],
            }
            if room_id is not None:
                event["room_id"] = room_id
            graph.append(events.finish(event, version, self.name, self._key))
            return graph[-1]

        creator = {"creator": self.user} if version == "10" else {}
        # Two rooms of one moment would be the same one, where the create event names them.
        number = {"org.example.number": len(self._rooms)}
        create = add("m.room.create", "", {"room_version": version, **creator, **number}, [])
        if hashed_id:
            room_id = "!" + events.event_id(create, version).removeprefix("$")
        member = add("m.room.member", self.user, {"membership": "join"}, [create])
        users = {} if hashed_id else {self.user: 100}
        levels = add("m.room.power_levels", "", {"users": users}, [create, member])
        rules = add(
            "m.room.join_rules", "", {"join_rule": join_rule}, [create, member, levels]
        )
        if join_rule != "invite":
            return Room(version, room_id, graph, user, None)
        invite = add(
            "m.room.member", user, {"membership": "invite"}, [create, member, levels, rules]
        )
        return Room(version, room_id, graph[:-1], user, invite)

    def _signed_keys(self) -> Json:
        key = get_verify_key(self._key)
        keys = {f"{key.alg}:{key.version}": {"key": encode_verify_key_base64(key)}}
        return sign_json(
            {
                "server_name": self.name,
                "valid_until_ts": _now_ms() + KEY_LIFETIME_MS,
                "verify_keys": keys,
                "old_verify_keys": {},
            },
            self.name,
            self._key,
        )

    async def _keys_of(self, server: Server) -> dict[str, VerifyKey]:
        async with self._session.get(f"https://{server.name}/_matrix/key/v2/server") as answer:
            published = await answer.json(content_type=None)
        return {
            key_id: decode_verify_key_bytes(key_id, decode_base64(entry["key"]))
            for key_id, entry in published["verify_keys"].items()
        }

    async def _request(
        self, method: str, destination: str, path: str, body: Json
    ) -> tuple[int, Any]:
        signed = sign_json(
            {
                "method": method,
                "uri": path,
                "origin": self.name,
                "destination": destination,
                "content": body,
            },
            self.name,
            self._key,
        )
        ((key_id, signature),) = signed["signatures"][self.name].items()
        header = (
            f'X-Matrix origin="{self.name}",destination="{destination}",'
            f'key="{key_id}",sig="{signature}"'
        )
        async with self._session.request(
            method,
            _encoded_url(destination, path),
            json=body,
            headers={"Authorization": header},
        ) as answer:
            return answer.status, await answer.json(content_type=None)


class _Judge:
    """Decides which uses of a signing key were meant."""

    def __init__(
        self, server: str, keys: dict[str, VerifyKey], room: Room, memberships: tuple[str, ...]
    ) -> None:
        self._server = server
        self._keys = keys
        self._room = room
        self._memberships = memberships
        self.objections: list[str] = []

    def request(self, destination: str, call: Call) -> None:
        """A request is signed for us alone, by the victim, and goes where it was meant to."""
        where = f"{call.request.method} {call.request.raw_path}"
        if call.endpoint == "trap":
            self.objections.append(f"followed a redirect: {where}")
        header = call.request.headers.get("Authorization")
        if header is None:
            return
        fields = dict(re.findall(r'(\w+)="?([^",]*)"?', header.removeprefix("X-Matrix ")))
        if fields.get("origin") != self._server or fields.get("destination") != destination:
            self.objections.append(f"request signed for someone else: {where}: {fields}")
            return
        signed = {
            "method": call.request.method,
            "uri": call.request.raw_path,
            "origin": fields["origin"],
            "destination": fields["destination"],
            "signatures": {self._server: {fields["key"]: fields["sig"]}},
        }
        if call.body is not None:
            signed["content"] = call.body
        self._check_signature(signed, where)
        if call.endpoint.startswith(("send_leave", "send_join", "send_knock")):
            path = call.arguments
            body_id = events.event_id(call.body, self._room.version)
            if path != (self._room.id, body_id):
                self.objections.append(f"path and body differ: {where}: {body_id}")

    def signed(self, thing: Json) -> None:
        """An object that carries the victim's signature."""
        if self._is_the_invite(thing):
            return
        for objection in self._about_event(thing):
            self.objections.append(f"{objection}: {json.dumps(thing)[:2000]}")

    def _is_the_invite(self, thing: Json) -> bool:
        ours = _without_signature(thing, self._server)
        return ours == self._room.invite

    def _about_event(self, event: Json) -> Iterator[str]:
        keys = set(event)
        if not _SIGNED_KEYS <= keys <= _SIGNED_KEYS | _OPTIONAL_KEYS:
            yield f"keys that were not asked for: {keys ^ _SIGNED_KEYS}"
            return
        expected = {
            "type": "m.room.member",
            "room_id": self._room.id,
            "sender": self._room.user,
            "state_key": self._room.user,
        }
        for key, value in expected.items():
            if event[key] != value:
                yield f"foreign {key}"
        content = event["content"]
        membership = content.get("membership")
        if membership not in self._memberships:
            yield "foreign membership"
        elif not set(content) <= _CONTENT_KEYS[membership]:
            yield "foreign content"
        if event.get("origin", self._server) != self._server:
            yield "foreign origin"
        if not _is_integer(event["depth"]) or not 0 <= event["depth"] <= MAX_DEPTH:
            yield "depth out of range"
        timestamp = event["origin_server_ts"]
        if not _is_integer(timestamp) or abs(timestamp - _now_ms()) > CLOCK_TOLERANCE_MS:
            yield "a time that is not the signer's"
        for key, most in (("prev_events", MAX_PREV_EVENTS), ("auth_events", MAX_AUTH_EVENTS)):
            ids = event[key]
            if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
                yield f"{key} is not a list of event ids"
            elif len(ids) > most or len(set(ids)) != len(ids):
                yield f"{key} is too long or has duplicates"
        if event["hashes"] != {"sha256": events.content_hash(event)}:
            yield "wrong content hash"
        if set(event["signatures"]) != {self._server}:
            yield "signatures of others"
        self._check_signature(events.redact(event, self._room.version), "event")

    def _check_signature(self, thing: Json, what: str) -> None:
        for key_id in thing["signatures"][self._server]:
            key = self._keys.get(key_id)
            if key is None:
                self.objections.append(f"{what}: signed with the unpublished key {key_id}")
                continue
            try:
                verify_signed_json(copy.deepcopy(thing), self._server, key)
            except SignatureVerifyException as failure:
                self.objections.append(f"{what}: {failure}")


async def _honestly(call: Call) -> web.StreamResponse:
    answer = call.honest()
    if answer is None:
        unknown = {"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}
        return web.json_response(unknown, status=404)
    return web.json_response(answer)


def _match(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    for name, wanted, pattern in ENDPOINTS:
        if wanted in ("*", method) and (match := pattern.fullmatch(path)):
            return name, tuple(unquote(part) for part in match.groups() if part)
    return UNKNOWN_ENDPOINT, ()


def _signed_by(server: str, value: Any) -> Iterator[Json]:
    """Every object inside `value` that carries a signature of `server`."""
    if isinstance(value, dict):
        signatures = value.get("signatures")
        if isinstance(signatures, dict) and server in signatures:
            yield value
        for inner in value.values():
            yield from _signed_by(server, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _signed_by(server, inner)


def _without_signature(thing: Json, server: str) -> Json:
    signatures = {name: sigs for name, sigs in thing["signatures"].items() if name != server}
    rest = {key: value for key, value in thing.items() if key != "unsigned"}
    return {**rest, "signatures": signatures}


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _encoded_url(server: str, path: str) -> URL:
    """The URL as it is signed: aiohttp must not re-encode the path."""
    return URL(f"https://{server}{path}", encoded=True)
