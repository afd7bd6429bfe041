"""A server whose certificate is wrong is refused, and the logs name what mends it."""

from __future__ import annotations

import mesh
import pytest
import pytest_asyncio
from client import Refused, User, eventually
from conftest import NewUser
from mesh import Container

ROOM_VERSION = "12"
ADD_CA = "add the CA to federation.extra_ca"
#: What a server of the mesh writes when it refuses the server of that name.
WHY_REFUSED = {
    "stranger": ADD_CA,
    "impostor": ADD_CA,
    "misnamed": "the certificate is for another name",
    "expired": "the certificate has expired; check the certificate and both clocks",
}
#: What the server itself writes when it starts.
WHY_WRONG = {
    "misnamed": "the certificate does not name misnamed, so other servers will refuse it",
    "expired": "the certificate has expired; renew it and restart",
}


@pytest_asyncio.fixture(scope="module", params=WHY_REFUSED)
async def wrong(request: pytest.FixtureRequest) -> Container:
    return await mesh.find(request.param, "exeunt", mesh.authority())


async def refused_invite(inviter: User, invitee: User) -> None:
    """The invite fails, and nobody is invited."""
    room = await inviter.create_room(ROOM_VERSION)
    with pytest.raises(Refused):
        await inviter.invite(room, invitee.id)
    assert await inviter.membership(room, invitee.id) is None
    await invitee.sync()
    assert room not in invitee.view.invited


async def logs(server: Container, *words: str) -> None:
    """Some line of the log has all the words."""

    async def has_line() -> bool:
        lines = (await server.log()).splitlines()
        return any(all(word in line for word in words) for line in lines)

    await eventually(has_line, f"a line of {server.name}'s log with {words}")


async def test_a_request_to_it_fails(
    servers: dict[str, Container], wrong: Container, new_user: NewUser
) -> None:
    ours = servers["hs1"]
    alice, mallory = await new_user(ours, "alice"), await new_user(wrong, "mallory")
    await refused_invite(alice, mallory)
    await logs(ours, wrong.name, WHY_REFUSED[wrong.name])


@pytest.mark.parametrize("name", mesh.SERVERS)
async def test_its_request_fails(
    servers: dict[str, Container], wrong: Container, new_user: NewUser, name: str
) -> None:
    ours = servers[name]
    mallory, bob = await new_user(wrong, "mallory"), await new_user(ours, "bob")
    await refused_invite(mallory, bob)
    if wrong.name == "stranger":
        await logs(wrong, name, ADD_CA)
    elif ours.kind == "exeunt":
        await logs(ours, wrong.name, WHY_REFUSED[wrong.name])


async def test_it_says_itself_what_is_wrong(wrong: Container) -> None:
    if wrong.name in WHY_WRONG:
        await logs(wrong, WHY_WRONG[wrong.name])
