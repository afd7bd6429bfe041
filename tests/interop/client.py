"""A user at a keyboard: matrix-nio, with errors raised and syncs folded into a view."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import aiohttp
from nio import (
    AsyncClient,
    AsyncClientConfig,
    ErrorResponse,
    MatrixRoom,
    ReceiptEvent,
    Response,
    RoomPreset,
    TypingNoticeEvent,
)
from servers import Server

PASSWORD = "correct horse battery staple"
#: What must travel between two healthy servers does so within this many seconds.
SOON = 30.0
REQUEST_DEADLINE = 60.0
LONG_POLL = 1.0
POLL_INTERVAL = 0.1


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, status: int, errcode: str | None, message: str) -> None:
        super().__init__(f"{status} {errcode}: {message}")
        self.status = status
        self.errcode = errcode


class View:
    """What the syncs so far have shown of each room."""

    def __init__(self) -> None:
        self.invited: set[str] = set()
        self.joined: set[str] = set()
        self.left: set[str] = set()
        self.events: dict[str, dict[str, Any]] = {}
        #: The room of each event.
        self.room_of: dict[str, str] = {}
        #: Who types in each room.
        self.typing: dict[str, list[str]] = {}
        #: Up to which event who has read, by (room, user).
        self.read: dict[tuple[str, str], str] = {}

    def absorb(self, rooms: Any) -> None:
        """Takes in the `rooms` object of a sync response."""
        sections = (
            (rooms.invite, self.invited),
            (rooms.join, self.joined),
            (rooms.leave, self.left),
        )
        for shown, members in sections:
            for room_id in shown:
                for _, others in sections:
                    others.discard(room_id)
                members.add(room_id)
        for shown in (rooms.join, rooms.leave):
            for room_id, room in shown.items():
                for event in (*room.state, *room.timeline.events):
                    self.events[event.event_id] = event.source
                    self.room_of[event.event_id] = room_id
        for room_id, room in rooms.join.items():
            for event in room.ephemeral:
                self._absorb_ephemeral(room_id, event)

    def _absorb_ephemeral(self, room_id: str, event: Any) -> None:
        if isinstance(event, TypingNoticeEvent):
            self.typing[room_id] = event.users
        elif isinstance(event, ReceiptEvent):
            for receipt in event.receipts:
                self.read[room_id, receipt.user_id] = receipt.event_id


class User:
    """One logged-in user.

    Clients drop their session on a 401, and some on the errcode M_UNKNOWN_TOKEN or on
    `soft_logout`, whatever the status; `told_to_log_out` says whether any of it was answered.
    """

    def __init__(self, server: Server, localpart: str) -> None:
        self.server = server
        self.id = f"@{localpart}:{server.name}"
        self.localpart = localpart
        self.view = View()
        self.told_to_log_out = False
        self._nio = AsyncClient(
            server.client_url,
            self.id,
            ssl=server.authority.client_context(),
            config=AsyncClientConfig(
                max_limit_exceeded=0, max_timeouts=0, request_timeout=REQUEST_DEADLINE
            ),
        )

    @classmethod
    async def create(cls, server: Server, localpart: str, *, admin: bool = False) -> User:
        """Registers with the shared secret, logs in and syncs once."""
        await _register_with_secret(server, localpart, admin)
        user = cls(server, localpart)
        await user._ok(user._nio.login(PASSWORD))
        await user.sync()
        return user

    @classmethod
    async def sign_up(cls, server: Server, localpart: str) -> User:
        """Registers as a stranger does (`m.login.dummy`) and syncs once."""
        user = cls(server, localpart)
        await user._ok(user._nio.register(localpart, PASSWORD))
        await user.sync()
        return user

    async def login_again(self) -> User:
        """A second device of the same user, which has synced once."""
        device = User(self.server, self.localpart)
        await device._ok(device._nio.login(PASSWORD))
        await device.sync()
        return device

    async def close(self) -> None:
        await self._nio.close()

    async def create_room(self, version: str, *, public: bool = False) -> str:
        preset = RoomPreset.public_chat if public else RoomPreset.private_chat
        answer = await self._ok(self._nio.room_create(room_version=version, preset=preset))
        return answer.room_id

    async def invite(self, room_id: str, user_id: str) -> None:
        await self._ok(self._nio.room_invite(room_id, user_id))

    async def join(self, room_id: str) -> None:
        await self._ok(self._nio.join(room_id))

    async def leave(self, room_id: str) -> None:
        """Leaves the room, rejects its invite or retracts a knock."""
        await self._ok(self._nio.room_leave(room_id))

    async def kick(self, room_id: str, user_id: str) -> None:
        await self._ok(self._nio.room_kick(room_id, user_id))

    async def ban(self, room_id: str, user_id: str) -> None:
        await self._ok(self._nio.room_ban(room_id, user_id))

    async def unban(self, room_id: str, user_id: str) -> None:
        await self._ok(self._nio.room_unban(room_id, user_id))

    async def create_room_with(self, version: str, join_rule: dict[str, Any]) -> str:
        """A room with that content of `m.room.join_rules`."""
        rule = {"type": "m.room.join_rules", "state_key": "", "content": join_rule}
        body = {"room_version": version, "preset": "private_chat", "initial_state": [rule]}
        return (await self.ask("POST", "/createRoom", body))["room_id"]

    async def knock(self, room_id: str, via: str, reason: str) -> None:
        path = f"/knock/{quote(room_id, safe='')}?via={via}&server_name={via}"
        await self.ask("POST", path, {"reason": reason})

    async def join_via(self, room_id: str, via: str) -> None:
        path = f"/join/{quote(room_id, safe='')}?via={via}&server_name={via}"
        await self.ask("POST", path, {})

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request that nio does not know; `path` follows `/_matrix/client/v3`, or is whole."""
        url = path if path.startswith("/_") else f"/_matrix/client/v3{path}"
        connector = aiohttp.TCPConnector(ssl=self.server.authority.client_context())
        timeout = aiohttp.ClientTimeout(total=REQUEST_DEADLINE)
        headers = {"Authorization": f"Bearer {self._nio.access_token}"}
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(
                method, self.server.client_url + url, json=body, headers=headers
            ) as answer,
        ):
            said = await answer.json()
            if answer.status != 200:
                errcode = said.get("errcode")
                self.told_to_log_out |= answer.status == 401 or errcode == "M_UNKNOWN_TOKEN"
                raise Refused(answer.status, errcode, said.get("error", ""))
            return said

    async def call(self, name: str, /, *args: Any, **more: Any) -> Any:
        """A call of nio by its name; an error is raised."""
        return await self._ok(getattr(self._nio, name)(*args, **more))

    def room(self, room_id: str) -> MatrixRoom:
        """What nio shows of a room that this user is or was in."""
        return self._nio.rooms[room_id]

    async def say(self, room_id: str, text: str, **more: Any) -> str:
        content = {"msgtype": "m.text", "body": text, **more}
        return await self.send(room_id, "m.room.message", content)

    async def send(self, room_id: str, kind: str, content: dict[str, Any]) -> str:
        return (await self._ok(self._nio.room_send(room_id, kind, content))).event_id

    async def read_up_to(self, room_id: str, event_id: str) -> None:
        await self._ok(self._nio.room_read_markers(room_id, event_id, event_id))

    async def type(self, room_id: str, types: bool) -> None:
        await self._ok(self._nio.room_typing(room_id, types))

    async def event(self, room_id: str, event_id: str) -> dict[str, Any]:
        answer = await self._ok(self._nio.room_get_event(room_id, event_id))
        return answer.event.source

    async def membership(self, room_id: str, user_id: str) -> str | None:
        """The membership of `user_id` as this user's server sees it; None when there is none."""
        try:
            answer = await self._ok(
                self._nio.room_get_state_event(room_id, "m.room.member", user_id)
            )
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return answer.content["membership"]

    async def sync(self, long_poll: float = 0.0) -> None:
        answer = await self._ok(self._nio.sync(timeout=int(long_poll * 1000)))
        self.view.absorb(answer.rooms)

    async def wait_for(
        self, predicate: Callable[[View], bool], what: str, deadline: float = SOON
    ) -> None:
        """Syncs until the view satisfies `predicate`."""
        end = time.monotonic() + deadline
        while not predicate(self.view):
            if time.monotonic() > end:
                raise AssertionError(f"{self.id} did not see {what} within {deadline:.0f} s")
            await self.sync(LONG_POLL)

    async def wait_for_invite(self, room_id: str) -> None:
        await self.wait_for(lambda view: room_id in view.invited, f"the invite to {room_id}")

    async def wait_for_leave(self, room_id: str) -> None:
        await self.wait_for(lambda view: room_id in view.left, f"{room_id} under leave")
        assert room_id not in self.view.invited

    async def wait_for_event(self, event_id: str) -> None:
        await self.wait_for(lambda view: event_id in view.events, f"the event {event_id}")

    async def wait_for_membership(
        self, room_id: str, user_id: str, expected: str, deadline: float = SOON
    ) -> None:
        async def is_expected() -> bool:
            return await self.membership(room_id, user_id) == expected

        await eventually(is_expected, f"{user_id} to be under {expected} in {room_id}", deadline)

    async def _ok(self, call: Awaitable[Response]) -> Any:
        answer = await call
        status = answer.transport_response.status
        if isinstance(answer, ErrorResponse):
            self.told_to_log_out |= (
                status == 401 or answer.status_code == "M_UNKNOWN_TOKEN" or answer.soft_logout
            )
            raise Refused(status, answer.status_code, answer.message)
        return answer


async def eventually(
    condition: Callable[[], Awaitable[bool]], what: str, deadline: float = SOON
) -> None:
    """Polls until `condition` holds."""
    end = time.monotonic() + deadline
    while not await condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline:.0f} s in vain for {what}")
        await asyncio.sleep(POLL_INTERVAL)


async def _register_with_secret(server: Server, localpart: str, admin: bool) -> None:
    url = f"{server.client_url}/_synapse/admin/v1/register"
    connector = aiohttp.TCPConnector(ssl=server.authority.client_context())
    timeout = aiohttp.ClientTimeout(total=REQUEST_DEADLINE)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        async with session.get(url) as answer:
            nonce = (await answer.json())["nonce"]
        role = "admin" if admin else "notadmin"
        signed = "\0".join((nonce, localpart, PASSWORD, role)).encode()
        mac = hmac.new(server.secret.encode(), signed, hashlib.sha1).hexdigest()
        body = {
            "nonce": nonce,
            "username": localpart,
            "password": PASSWORD,
            "admin": admin,
            "mac": mac,
            "inhibit_login": True,
        }
        async with session.post(url, json=body) as answer:
            if answer.status != 200:
                raise Refused(answer.status, None, await answer.text())
