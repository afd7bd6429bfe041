"""The containers of a running mesh, as the interop tests' client takes servers."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

from ca import Authority
from client import eventually

#: In the order of `deploy/mesh/docker-compose.yml`, with what runs there.
SERVERS = {"hs1": "exeunt", "hs2": "exeunt", "hs3": "exeunt", "hs4": "synapse"}
SECRET = "mesh-secret"
COMMAND_DEADLINE = 60.0
#: The runtime gives up on freezing a container in which a health check is just being started.
PAUSE_ATTEMPTS = 5


class DockerFailed(Exception):
    """A docker command did not do what it was told."""


@dataclass
class Container:
    """A server of the mesh. It has what the client asks of a `servers.Server`."""

    name: str
    kind: str
    client_url: str
    id: str
    authority: Authority
    secret: str = SECRET
    paused: bool = field(default=False, init=False)

    @property
    def keeps_departures(self) -> bool:
        """Rejections that nobody could take are delivered when the inviter is back."""
        return self.kind == "exeunt"

    @property
    def answers_at_once(self) -> bool:
        """A client that rejects an invite is answered within seconds, whatever the peer does."""
        return self.kind == "exeunt"

    async def pause(self) -> None:
        for attempt in range(1, PAUSE_ATTEMPTS + 1):
            try:
                await docker("pause", self.id)
                break
            except DockerFailed as failed:
                if "unable to freeze" not in str(failed) or attempt == PAUSE_ATTEMPTS:
                    raise
        self.paused = True

    async def unpause(self) -> None:
        if self.paused:
            await docker("unpause", self.id)
            self.paused = False

    async def disconnect(self) -> None:
        """Cuts the server off from the mesh; its clients still reach it."""
        await docker("network", "disconnect", network(), self.id)

    async def connect(self) -> None:
        await docker("network", "connect", "--alias", self.name, network(), self.id)

    async def log(self) -> str:
        return await docker("logs", self.id)

    async def log_from_now(self) -> Log:
        return Log(self, len(await self.log()))

    def log_from_start(self) -> Log:
        return Log(self, 0)


@dataclass(frozen=True)
class Log:
    """What a server writes, from some character on."""

    server: Container
    start: int

    async def shows(self, *words: str) -> None:
        """Some line has all the words, or will have."""

        async def has_line() -> bool:
            lines = (await self.server.log())[self.start :].splitlines()
            return any(all(word in line for word in words) for line in lines)

        await eventually(has_line, f"a line of {self.server.name}'s log with {words}")


async def find(name: str, kind: str, authority: Authority) -> Container:
    """The container of a compose service, whatever Compose calls it."""
    filters = (f"project={os.environ['MESH_PROJECT']}", f"service={name}")
    words = [word for f in filters for word in ("--filter", f"label=com.docker.compose.{f}")]
    ids = (await docker("ps", "--quiet", "--no-trunc", *words)).split()
    if len(ids) != 1:
        raise DockerFailed(f"{len(ids)} containers of the service {name} are running, not one")
    (address, *_) = (await docker("port", ids[0], "8008/tcp")).split()
    return Container(name, kind, f"http://{address}", ids[0], authority)


def network() -> str:
    return os.environ["MESH_NETWORK"]


def authority() -> Authority:
    """The authority that signed the servers' certificates."""
    return Authority(Path(os.environ["MESH_STATE"]))


async def docker(*words: str) -> str:
    """Runs a docker command; returns what it printed on both streams."""
    process = await asyncio.create_subprocess_exec(
        "docker",
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), COMMAND_DEADLINE)
    text = output.decode(errors="replace")
    if process.returncode != 0:
        raise DockerFailed(f"docker {' '.join(words)}: {text}")
    return text
