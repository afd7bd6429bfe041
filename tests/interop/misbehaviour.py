"""What a hostile server can do with a request: mutated templates and broken answers."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from typing import Any

from aiohttp import ClientConnectionResetError, web
from events import Json
from hostile import TRAP, Behaviour, Call

#: A request that is left hanging is let go after this long.
PATIENCE = 120.0
DRIP_INTERVAL = 0.25
FLOOD_BYTES = 1024 * 1024 * 1024
CHUNK = b"a" * (1024 * 1024)
MANY = 5000
DEEP = 50_000

Mutation = Callable[[Json, Call], Any]


def template(mutate: Mutation) -> Behaviour:
    """Answers make_leave or make_join with a changed template.

    `mutate` gets the whole answer, changes it in place, or returns another one.
    """

    async def behave(call: Call) -> web.StreamResponse:
        answer = copy.deepcopy(call.honest())
        replaced = mutate(answer, call)
        return web.json_response(answer if replaced is None else replaced)

    return behave


def event_with(**fields: Any) -> Mutation:
    """Sets keys of the template's event."""
    return lambda answer, _call: answer["event"].update(fields)


def event_without(*keys: str) -> Mutation:
    def mutate(answer: Json, _call: Call) -> None:
        for key in keys:
            del answer["event"][key]

    return mutate


def content_with(**fields: Any) -> Mutation:
    return lambda answer, _call: answer["event"]["content"].update(fields)


def version(value: Any) -> Mutation:
    return lambda answer, _call: answer.update(room_version=value)


def _other_local_user(answer: Json, call: Call) -> None:
    victim = call.arguments[1].split(":", 1)[1]
    other = f"@admin:{victim}"
    answer["event"].update(sender=other, state_key=other)


def _user_of_peer(answer: Json, call: Call) -> None:
    answer["event"].update(sender=call.hostile.user, state_key=call.hostile.user)


def _other_sender(answer: Json, call: Call) -> None:
    answer["event"].update(sender=call.hostile.user)


def _other_target(answer: Json, call: Call) -> None:
    answer["event"].update(state_key=call.hostile.user)


def _other_room(answer: Json, call: Call) -> None:
    answer["event"].update(room_id=f"!elsewhere:{call.hostile.name}")


def _takes_power(answer: Json, call: Call) -> None:
    answer["event"].update(
        type="m.room.power_levels", state_key="", content={"users": {call.hostile.user: 100}}
    )


def _message(answer: Json, _call: Call) -> None:
    answer["event"].update(type="m.room.message", content={"msgtype": "m.text", "body": "hi"})
    del answer["event"]["state_key"]


def _duplicates(key: str) -> Mutation:
    return lambda answer, _call: answer["event"].update({key: answer["event"][key] * 3})


def _thousands(key: str) -> Mutation:
    ids = [f"${n:043d}" for n in range(MANY)]
    return event_with(**{key: ids})


#: The changes that are made to a template, by name.
TEMPLATES: dict[str, Mutation] = {
    "another-room": _other_room,
    "no-room": event_without("room_id"),
    "another-local-user": _other_local_user,
    "user-of-peer": _user_of_peer,
    "another-sender": _other_sender,
    "another-state-key": _other_target,
    "no-sender": event_without("sender"),
    "no-state-key": event_without("state_key"),
    "type-power-levels": _takes_power,
    "type-message": _message,
    "type-number": event_with(type=7),
    "membership-invite": content_with(membership="invite"),
    "membership-ban": content_with(membership="ban"),
    "membership-knock": content_with(membership="knock"),
    "membership-number": content_with(membership=1),
    "membership-absent": event_with(content={}),
    "content-absent": event_without("content"),
    "content-list": event_with(content=[]),
    "content-extra": content_with(displayname="Mallory's puppet", evil={"deep": True}),
    "content-authoriser": content_with(join_authorised_via_users_server="@root:localhost"),
    "content-float": content_with(weight=1.5),
    "extra-keys": event_with(evil="yes", redacts="$event", membership="join"),
    "extra-unsigned": event_with(unsigned={"age": 1, "evil": "yes"}),
    "event-id": event_with(event_id="$chosen-by-the-peer"),
    "signatures-and-hashes": event_with(
        hashes={"sha256": "AAAA"}, signatures={"localhost": {"ed25519:a": "AAAA"}}
    ),
    "origin-of-another": event_with(origin="victim.example"),
    "time-of-another": event_with(origin_server_ts=1),
    "time-string": event_with(origin_server_ts="now"),
    "version-absent": lambda answer, _call: answer.pop("room_version") and None,
    "version-1": version("1"),
    "version-6": version("6"),
    "version-unknown": version("org.example.999"),
    "version-number": version(11),
    "depth-2-53": event_with(depth=2**53),
    "depth-huge": event_with(depth=2**80),
    "depth-max": event_with(depth=2**53 - 1),
    "depth-negative": event_with(depth=-1),
    "depth-float": event_with(depth=1.5),
    "depth-string": event_with(depth="5"),
    "depth-bool": event_with(depth=True),
    "depth-absent": event_without("depth"),
    "auth-events-thousands": _thousands("auth_events"),
    "auth-events-duplicates": _duplicates("auth_events"),
    "auth-events-empty": event_with(auth_events=[]),
    "auth-events-absent": event_without("auth_events"),
    "auth-events-old-form": event_with(auth_events=[["$a:b", {"sha256": "AAAA"}]]),
    "auth-events-numbers": event_with(auth_events=[1, None]),
    "prev-events-thousands": _thousands("prev_events"),
    "prev-events-duplicates": _duplicates("prev_events"),
    "prev-events-empty": event_with(prev_events=[]),
    "prev-events-absent": event_without("prev_events"),
    "prev-events-object": event_with(prev_events={"$a": 1}),
    "event-absent": lambda answer, _call: answer.pop("event") and None,
    "event-list": lambda answer, _call: answer.update(event=[]),
    "event-null": lambda answer, _call: answer.update(event=None),
    "answer-list": lambda answer, _call: [200, answer],
}


def error(status: int, errcode: str, **extra: Any) -> Behaviour:
    async def behave(_call: Call) -> web.StreamResponse:
        body = {"errcode": errcode, "error": "said the hostile peer", **extra}
        return web.json_response(body, status=status)

    return behave


def text(status: int, body: str, content_type: str = "application/json") -> Behaviour:
    async def behave(_call: Call) -> web.StreamResponse:
        return web.Response(status=status, text=body, content_type=content_type)

    return behave


def redirect(status: int) -> Behaviour:
    async def behave(call: Call) -> web.StreamResponse:
        location = f"https://{call.hostile.name}{TRAP}{call.endpoint}"
        return web.Response(status=status, headers={"Location": location})

    return behave


async def hang(call: Call) -> web.StreamResponse:
    """Answers nothing until the server is closed."""
    try:
        await asyncio.wait_for(call.hostile.closing.wait(), PATIENCE)
    except TimeoutError:
        pass  # the caller was patient enough
    return web.Response(status=504)


async def drip(call: Call) -> web.StreamResponse:
    """Sends the honest answer behind endless blanks, one at a time."""

    async def blanks(response: web.StreamResponse) -> None:
        for _ in range(int(PATIENCE / DRIP_INTERVAL)):
            if call.hostile.closing.is_set():
                return
            await response.write(b" ")
            await asyncio.sleep(DRIP_INTERVAL)
        await response.write(json.dumps(call.honest()).encode())

    return await _stream(call, blanks)


async def flood(call: Call) -> web.StreamResponse:
    """A body that no reader should take in to its end."""

    async def letters(response: web.StreamResponse) -> None:
        await response.write(b'{"event": "')
        for _ in range(FLOOD_BYTES // len(CHUNK)):
            transport = call.request.transport
            if transport is None or transport.is_closing():
                return
            await response.write(CHUNK)
        await response.write(b'"}')

    return await _stream(call, letters)


async def hang_up(call: Call) -> web.StreamResponse:
    """Closes the connection instead of answering."""
    call.request.transport.abort()
    return web.Response(status=500)


async def hang_up_midway(call: Call) -> web.StreamResponse:
    """Closes the connection in the middle of the body."""

    async def half(response: web.StreamResponse) -> None:
        await response.write(b'{"event": {')
        call.request.transport.abort()

    return await _stream(call, half)


#: What can go wrong on any endpoint, by name.
ANSWERS: dict[str, Behaviour] = {
    "400": error(400, "M_BAD_JSON"),
    "401-unknown-token": error(401, "M_UNKNOWN_TOKEN", soft_logout=True),
    "401-unauthorized": error(401, "M_UNAUTHORIZED"),
    "403": error(403, "M_FORBIDDEN"),
    "404": error(404, "M_NOT_FOUND"),
    "404-unrecognized": error(404, "M_UNRECOGNIZED"),
    "404-html": text(404, "<h1>Not found</h1>", "text/html"),
    "429": error(429, "M_LIMIT_EXCEEDED", retry_after_ms=3_600_000),
    "500": error(500, "M_UNKNOWN"),
    "502-html": text(502, "<h1>Bad gateway</h1>", "text/html"),
    "html-with-200": text(200, "<h1>It works</h1>", "text/html"),
    "empty-with-200": text(200, ""),
    "invalid-json": text(200, '{"event": {"depth": '),
    "nan-json": text(200, '{"event": {"depth": NaN}, "room_version": "10"}'),
    "deep-json": text(200, "[" * DEEP),
    "string-json": text(200, '"fine"'),
    "redirect-302": redirect(302),
    "redirect-307": redirect(307),
    "redirect-308": redirect(308),
    "hang": hang,
    "drip": drip,
    "flood": flood,
    "hang-up": hang_up,
    "hang-up-midway": hang_up_midway,
}


async def _stream(call: Call, write: Callable[[web.StreamResponse], Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(call.request)
    try:
        await write(response)
        await response.write_eof()
    except ClientConnectionResetError:
        pass  # the reader had enough, as it should
    return response
