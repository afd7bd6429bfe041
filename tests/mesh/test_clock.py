"""A server whose clock is wrong is alone in the mesh, and its log names the clock."""

from __future__ import annotations

import mesh
import pytest
import pytest_asyncio
from conftest import NewUser, refused_invite
from mesh import Container

#: More than a year: by these clocks no certificate of the mesh is valid, their own neither.
FAR_OFF = {"behind": "the certificate is not valid yet", "ahead": "the certificate has expired"}
#: By this one all certificates are valid, and other servers' signing keys are not.
MONTH_AHEAD = "month-ahead"
CORRECT_IT = "correct the clock (NTP) if it is wrong"


@pytest_asyncio.fixture(scope="module", params=FAR_OFF)
async def far_off(request: pytest.FixtureRequest) -> Container:
    return await mesh.find(request.param, "exeunt", mesh.authority())


@pytest_asyncio.fixture(scope="module")
async def month_ahead() -> Container:
    return await mesh.find(MONTH_AHEAD, "exeunt", mesh.authority())


@pytest.mark.parametrize("name", mesh.SERVERS)
async def test_it_refuses_the_certificates_of_others(
    servers: dict[str, Container], far_off: Container, new_user: NewUser, name: str
) -> None:
    mallory, bob = await new_user(far_off, "mallory"), await new_user(servers[name], "bob")
    log = await far_off.log_from_now()
    await refused_invite(mallory, bob)
    await log.shows(name, FAR_OFF[far_off.name], CORRECT_IT)


async def test_it_cannot_verify_requests(
    servers: dict[str, Container], far_off: Container, new_user: NewUser
) -> None:
    ours = servers["hs1"]
    alice, mallory = await new_user(ours, "alice"), await new_user(far_off, "mallory")
    log = await far_off.log_from_now()
    await refused_invite(alice, mallory)
    await log.shows(ours.name, FAR_OFF[far_off.name], CORRECT_IT)
    # Its answer is dated. It may have answered before, and then this was said before.
    difference = f"days {far_off.name}"
    await ours.log_from_start().shows(f"server={far_off.name}", "the server's clock", difference)


async def test_it_complains_of_its_own_certificate(far_off: Container) -> None:
    words = (FAR_OFF[far_off.name], "correct this machine's clock (NTP) if it is wrong")
    await far_off.log_from_start().shows(*words)


@pytest.mark.parametrize("name", ["hs1", "hs4"])
async def test_by_a_clock_a_month_ahead_the_keys_of_others_have_expired(
    servers: dict[str, Container], month_ahead: Container, new_user: NewUser, name: str
) -> None:
    ours = servers[name]
    alice, mallory = await new_user(ours, "alice"), await new_user(month_ahead, "mallory")
    log = await month_ahead.log_from_now()
    await refused_invite(alice, mallory)
    await log.shows(f"server={name}", "the key document has expired; check both clocks")
    await log.shows(f"server={name}", "days behind this machine's", "correct it (NTP)")
