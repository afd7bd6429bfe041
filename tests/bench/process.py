"""A server process that is measured from outside: by the clock and by /proc."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import aiohttp
from servers import KILL_WITH_PARENT, Server

START_DEADLINE = 60.0
STOP_DEADLINE = 20.0
#: Finer than the harness, which only wants to know that a server is there.
POLL_INTERVAL = 0.002
TICKS = os.sysconf("SC_CLK_TCK")


class Measured:
    """Runs the command of `server`, whose configuration the interop harness writes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.start_up = 0.0
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Measured:
        self.server.configure()
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        async with session(self.server) as http:
            with self.server.log.open("ab") as log:
                began = time.monotonic()
                self._process = await asyncio.create_subprocess_exec(
                    *KILL_WITH_PARENT,
                    *self.server.command(),
                    cwd=self.server.folder,
                    env=environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            try:
                await self._until_healthy(http)
            except BaseException:
                await self.__aexit__()
                raise
            self.start_up = time.monotonic() - began
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_DEADLINE)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _until_healthy(self, http: aiohttp.ClientSession) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while time.monotonic() < deadline:
            if self._process.returncode is not None:
                break
            with contextlib.suppress(aiohttp.ClientConnectionError, TimeoutError):
                async with http.get("/health") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(POLL_INTERVAL)
        raise RuntimeError(f"{self.server.kind} does not start:\n{self.server.log_tail()}")

    def memory(self) -> int:
        """Resident bytes now."""
        return self._status("VmRSS")

    def peak_memory(self) -> int:
        """The most resident bytes so far."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """The most resident bytes count from now on (proc(5), clear_refs)."""
        (self._proc / "clear_refs").write_text("5")

    def cpu(self) -> float:
        """Seconds of processor time so far, the kernel's part included."""
        stat = (self._proc / "stat").read_text()
        # The name may contain blanks; the fields after its bracket are numbers 3 and up.
        fields = stat.rpartition(")")[2].split()
        return (int(fields[14 - 3]) + int(fields[15 - 3])) / TICKS

    @property
    def _proc(self) -> Path:
        return Path(f"/proc/{self._process.pid}")

    def _status(self, key: str) -> int:
        for line in (self._proc / "status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"/proc/PID/status has no {key}")


def session(server: Server) -> aiohttp.ClientSession:
    """Requests to the server, its certificate verified."""
    return aiohttp.ClientSession(
        base_url=server.client_url,
        connector=aiohttp.TCPConnector(ssl=server.authority.client_context()),
        timeout=aiohttp.ClientTimeout(total=30),
    )
