"""The servers of a test: started together, healed between tests, stopped together."""

from __future__ import annotations

import itertools
import os
import secrets
import socket
from pathlib import Path

from ca import Authority
from client import User
from link import Link, port_of, reserve_port
from servers import Exeunt, Server, Synapse

KINDS = {kind.kind: kind for kind in (Exeunt, Synapse)}
SELFTEST = os.environ.get("EXEUNT_INTEROP_SELFTEST") == "1"
#: The kind of server under test; the self-test puts Synapse in its place.
UNDER_TEST = Synapse.kind if SELFTEST else Exeunt.kind

_localpart_numbers = itertools.count(1)


class Stage:
    """Starts servers, each behind a link that owns the port of its name."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder
        self.authority = authority
        self.servers: list[Server] = []
        self.users: list[User] = []
        self._holders: list[socket.socket] = []

    def reserve(self) -> int:
        """A port that is nobody else's while the stage stands."""
        holder = reserve_port()
        self._holders.append(holder)
        return port_of(holder)

    async def add(self, kind: str) -> Server:
        bind = self.reserve()
        link = Link(bind)
        await link.open()
        folder = self.folder / f"{len(self.servers)}-{kind}"
        server = KINDS[kind](
            folder,
            self.authority,
            name=f"localhost:{link.port}",
            bind=bind,
            secret=secrets.token_urlsafe(16),
            link=link,
        )
        self.servers.append(server)
        await server.start()
        return server

    async def user(self, server: Server, name: str, *, admin: bool = False) -> User:
        """A new user, whose name nobody had before."""
        user = await User.create(server, fresh_localpart(name), admin=admin)
        self.keep(user)
        return user

    def keep(self, user: User) -> None:
        """Closes the user's connections when the test ends."""
        self.users.append(user)

    async def heal(self) -> None:
        """Undoes what a test did to the servers: links restored, everyone running."""
        for user in self.users:
            await user.close()
        self.users.clear()
        for server in self.servers:
            await server.link.restore()
            if server.running:
                server.resume()
            else:
                await server.start()

    async def close(self) -> None:
        failures = []
        for server in self.servers:
            try:
                await server.stop()
            except Exception as failure:
                failures.append(failure)
            await server.link.close()
        for holder in self._holders:
            holder.close()
        if failures:
            raise ExceptionGroup("servers did not stop cleanly", failures)


def fresh_localpart(name: str) -> str:
    return f"{name}-{next(_localpart_numbers)}"
