"""A client of many things at once, by bare requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import aiohttp

SYNC_TIMEOUT_MS = 20_000


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

    async def say(
        self, room: str, text: str = "The quick brown fox jumps over the lazy dog."
    ) -> str:
        self._sent += 1
        path = f"/rooms/{quote(room)}/send/m.room.message/{self._sent}"
        body = {"msgtype": "m.text", "body": text}
        return (await self.ask("PUT", path, json=body))["event_id"]

    async def page(self, room: str, before: str, limit: int) -> Any:
        query = f"?dir=b&limit={limit}" + (f"&from={before}" if before else "")
        return await self.ask("GET", f"/rooms/{quote(room)}/messages{query}")

    async def search(self, text: str) -> Any:
        body = {"search_categories": {"room_events": {"search_term": text}}}
        return (await self.ask("POST", "/search", json=body))["search_categories"]["room_events"]

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
