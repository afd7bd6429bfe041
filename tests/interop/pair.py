"""Two servers, each as the inviter and as the invitee."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import pytest_asyncio
from client import User
from servers import Server, Synapse
from stage import SELFTEST, UNDER_TEST, Stage

DIRECTIONS = [(Synapse.kind, UNDER_TEST)]
if not SELFTEST:
    DIRECTIONS.append((UNDER_TEST, Synapse.kind))


@dataclass
class Pair:
    """The server that invites and the one whose user is invited."""

    inviter: Server
    invitee: Server


@pytest_asyncio.fixture(
    scope="module",
    params=DIRECTIONS,
    ids=[f"{inviter}-invites-{invitee}" for inviter, invitee in DIRECTIONS],
)
async def pair(stage: Stage, request: pytest.FixtureRequest) -> Pair:
    inviter, invitee = request.param
    return Pair(await stage.add(inviter), await stage.add(invitee))


@dataclass
class Invited:
    """Alice has invited Bob, and Bob has seen it."""

    alice: User
    bob: User
    room: str

    async def again(self) -> None:
        await self.alice.invite(self.room, self.bob.id)
        await self.bob.wait_for_invite(self.room)


async def invited(stage: Stage, pair: Pair, version: str = "11") -> Invited:
    alice = await stage.user(pair.inviter, "alice")
    bob = await stage.user(pair.invitee, "bob")
    case = Invited(alice, bob, await alice.create_room(version))
    await case.again()
    return case
