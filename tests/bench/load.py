"""The fixed load: users who register, make rooms, join, talk and sync, by bare requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import aiohttp

USERS = 20
ROOMS = 20
#: Members of a room besides its creator.
JOINS_PER_ROOM = 4
MESSAGES = 2000
SYNCS_PER_USER = 5
#: Requests under way at once.
AT_ONCE = 10
#: The whole load ends within this many seconds, or the run fails.
DEADLINE = 600.0

PASSWORD = "correct horse battery staple"
BODY = "The quick brown fox jumps over the lazy dog, again and again. " * 2

Operation = Callable[[], Awaitable[None]]


class Load:
    """`phases()` yields one batch of equal operations after the other, to be run in order."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._tokens: dict[int, str] = {}
        self._rooms: dict[int, str] = {}

    def phases(self) -> list[tuple[str, list[Operation]]]:
        users, rooms = range(USERS), range(ROOMS)
        return [
            ("register", [self._registration(user) for user in users]),
            ("create room", [self._creation(room) for room in rooms]),
            ("join", [self._join(r, m) for r in rooms for m in _members(r)[1:]]),
            ("send message", [self._message(number) for number in range(MESSAGES)]),
            ("full sync", [self._sync(user) for user in users for _ in range(SYNCS_PER_USER)]),
        ]

    def _registration(self, user: int) -> Operation:
        async def register() -> None:
            body = {"username": f"user{user}", "password": PASSWORD}
            path = "/_matrix/client/v3/register"
            async with self._http.post(path, json=body) as answer:
                session = (await answer.json())["session"]
            auth = {"type": "m.login.dummy", "session": session}
            answer = await self._ask("POST", path, json=body | {"auth": auth})
            self._tokens[user] = answer["access_token"]

        return register

    def _creation(self, room: int) -> Operation:
        async def create() -> None:
            body = {"preset": "public_chat", "name": f"Room {room}", "room_version": "11"}
            path = "/_matrix/client/v3/createRoom"
            answer = await self._ask("POST", path, user=_members(room)[0], json=body)
            self._rooms[room] = answer["room_id"]

        return create

    def _join(self, room: int, user: int) -> Operation:
        async def join() -> None:
            path = f"/_matrix/client/v3/join/{quote(self._rooms[room], safe='')}"
            await self._ask("POST", path, user=user, json={})

        return join

    def _message(self, number: int) -> Operation:
        async def send() -> None:
            room = number % ROOMS
            members = _members(room)
            user = members[number // ROOMS % len(members)]
            room_id = quote(self._rooms[room], safe="")
            path = f"/_matrix/client/v3/rooms/{room_id}/send/m.room.message/{number}"
            await self._ask("PUT", path, user=user, json={"msgtype": "m.text", "body": BODY})

        return send

    def _sync(self, user: int) -> Operation:
        async def sync() -> None:
            answer = await self._ask("GET", "/_matrix/client/v3/sync", user=user)
            assert len(answer["rooms"]["join"]) == ROOMS * (1 + JOINS_PER_ROOM) // USERS

        return sync

    async def _ask(self, method: str, path: str, user: int | None = None, **more: Any) -> Any:
        headers = {} if user is None else {"Authorization": f"Bearer {self._tokens[user]}"}
        async with self._http.request(method, path, headers=headers, **more) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{method} {path}: {answer.status} {await answer.text()}")
            return await answer.json()


def _members(room: int) -> list[int]:
    """The creator first."""
    return [(room + offset) % USERS for offset in range(1 + JOINS_PER_ROOM)]


async def run(operations: list[Operation]) -> None:
    """Runs them all, a few at a time, in about the order given."""
    queue = iter(operations)

    async def worker() -> None:
        for operation in queue:
            await operation()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())
