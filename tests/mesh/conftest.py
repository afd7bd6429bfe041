"""The mesh that run.sh has brought up, users who come and go with a test, and what they see."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import mesh
import pytest
import pytest_asyncio
from client import Refused, User
from mesh import Container

NewUser = Callable[[Container, str], Awaitable[User]]

ROOM_VERSION = "12"


@pytest_asyncio.fixture(scope="session")
async def servers() -> dict[str, Container]:
    """The mesh's servers by name."""
    authority = mesh.authority()
    return {name: await mesh.find(name, kind, authority) for name, kind in mesh.SERVERS.items()}


@pytest_asyncio.fixture(autouse=True)
async def healed(servers: dict[str, Container]) -> AsyncIterator[None]:
    """Nobody is left paused by a test."""
    yield
    for server in servers.values():
        await server.unpause()


@pytest_asyncio.fixture
async def new_user() -> AsyncIterator[NewUser]:
    users: list[User] = []

    async def create(server: Container, name: str) -> User:
        user = await User.create(server, f"{name}-{secrets.token_hex(4)}")
        users.append(user)
        return user

    yield create
    for user in users:
        await user.close()


async def refused_invite(inviter: User, invitee: User) -> None:
    """The invite fails, and nobody is invited."""
    room = await inviter.create_room(ROOM_VERSION)
    with pytest.raises(Refused):
        await inviter.invite(room, invitee.id)
    assert await inviter.membership(room, invitee.id) is None
    await invitee.sync()
    assert room not in invitee.view.invited
