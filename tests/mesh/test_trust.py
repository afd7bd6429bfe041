"""A server whose certificate is wrong is refused, and the logs name what mends it."""

from __future__ import annotations

import mesh
import pytest
import pytest_asyncio
from conftest import NewUser, refused_invite
from mesh import Container

ADD_CA = "add the CA to federation.extra_ca"
#: What a server of the mesh writes when it refuses the server of that name.
WHY_REFUSED = {
    "stranger": ADD_CA,
    "impostor": ADD_CA,
    "misnamed": "the certificate is for another name",
    "expired": "correct the clock (NTP) if it is wrong, else the server needs a new certificate",
}
#: What the server itself writes when it starts.
WHY_WRONG = {
    "misnamed": "the certificate does not name misnamed, so other servers will refuse it",
    "expired": "else renew the certificate and restart",
}


@pytest_asyncio.fixture(scope="module", params=WHY_REFUSED)
async def wrong(request: pytest.FixtureRequest) -> Container:
    return await mesh.find(request.param, "exeunt", mesh.authority())


async def test_a_request_to_it_fails(
    servers: dict[str, Container], wrong: Container, new_user: NewUser
) -> None:
    ours = servers["hs1"]
    alice, mallory = await new_user(ours, "alice"), await new_user(wrong, "mallory")
    log = await ours.log_from_now()
    await refused_invite(alice, mallory)
    await log.shows(wrong.name, WHY_REFUSED[wrong.name])


@pytest.mark.parametrize("name", mesh.SERVERS)
async def test_its_request_fails(
    servers: dict[str, Container], wrong: Container, new_user: NewUser, name: str
) -> None:
    ours = servers[name]
    mallory, bob = await new_user(wrong, "mallory"), await new_user(ours, "bob")
    log, its_log = await ours.log_from_now(), await wrong.log_from_now()
    await refused_invite(mallory, bob)
    if wrong.name == "stranger":
        await its_log.shows(name, ADD_CA)
    elif ours.kind == "exeunt":
        await log.shows(wrong.name, WHY_REFUSED[wrong.name])


async def test_it_says_itself_what_is_wrong(wrong: Container) -> None:
    if wrong.name in WHY_WRONG:
        await wrong.log_from_start().shows(WHY_WRONG[wrong.name])
