"""Homeserver processes under test: Exeunt and Synapse behind one interface."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path

import aiohttp
import yaml
from ca import Authority
from link import Link
from signedjson.key import generate_signing_key, write_signing_keys

START_DEADLINE = 60.0
STOP_DEADLINE = 20.0
COMMAND_DEADLINE = 60.0
POLL_INTERVAL = 0.05
LOG_TAIL_LINES = 40
KILL_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


class ServerFailed(Exception):
    """A server process did not do what it was told; carries the end of its log."""


class Server(ABC):
    """A homeserver process with one TLS listener for clients and federation.

    `name` is what the rest of the world calls it; `bind` is the port it listens on. They
    differ when a link sits in front of the name's port.
    """

    kind: str
    #: Rejections that nobody could take are delivered when the inviter is back.
    keeps_departures = False
    #: A client that rejects an invite is answered within seconds, whatever the peer does.
    answers_at_once = False

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        name: str,
        bind: int,
        secret: str,
        link: Link | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.authority = authority
        self.name = name
        self.bind = bind
        self.secret = secret
        self.link = link
        self.leaf = authority.leaf(f"{self.kind}-{bind}")
        self.log = folder / f"{self.kind}.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def client_url(self) -> str:
        return f"https://localhost:{self.bind}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Starts the process and returns once it serves clients."""
        assert not self.running, f"{self.name} runs already"
        self.configure()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *KILL_WITH_PARENT,
                *self.command(),
                cwd=self.folder,
                env=_environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            await self._until_healthy(time.monotonic() + START_DEADLINE)
        except BaseException:
            await self.kill9()
            raise

    async def stop(self) -> None:
        """SIGTERM; the server must be gone, with exit code 0, before the deadline."""
        if not self.running:
            return
        process = self._process
        process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(process.wait(), STOP_DEADLINE)
        except TimeoutError:
            await self.kill9()
            raise self._failed(f"still there {STOP_DEADLINE:.0f} s after SIGTERM") from None
        if code != 0:
            raise self._failed(f"exit code {code} after SIGTERM")

    async def kill9(self) -> None:
        if self.running:
            self._process.kill()
            await self._process.wait()

    async def wait(self) -> None:
        """Returns when the process has ended, for whatever reason."""
        await self._process.wait()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    @abstractmethod
    def configure(self) -> None:
        """Writes the configuration files."""

    @abstractmethod
    def command(self) -> tuple[str, ...]:
        """The command line that serves in the foreground."""

    @abstractmethod
    async def verify_store(self) -> None:
        """Checks the store of the stopped server; raises when it is damaged."""

    async def _until_healthy(self, deadline: float) -> None:
        connector = aiohttp.TCPConnector(ssl=self.authority.client_context())
        timeout = aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            while time.monotonic() < deadline:
                if not self.running:
                    raise self._failed(f"exit code {self._process.returncode} at start")
                with contextlib.suppress(aiohttp.ClientConnectionError, TimeoutError):
                    async with session.get(f"{self.client_url}/health") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(POLL_INTERVAL)
        raise self._failed(f"not healthy after {START_DEADLINE:.0f} s")

    def _failed(self, what: str) -> ServerFailed:
        return ServerFailed(f"{self.kind} {self.name}: {what}; {self.log}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of the log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])


class Exeunt(Server):
    """The server that this repository builds; the binary is named by EXEUNT_BIN."""

    kind = "exeunt"
    keeps_departures = True
    answers_at_once = True

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        #: Further options by section, as lines of TOML; they count from the next start on.
        self.options: dict[str, str] = {}

    @property
    def config(self) -> Path:
        return self.folder / "exeunt.toml"

    def configure(self) -> None:
        further = "".join(f"\n[{name}]\n{text}\n" for name, text in self.options.items())
        self.config.write_text(
            f"""\
[server]
name = "{self.name}"

[[listeners]]
bind = "127.0.0.1:{self.bind}"
certificate = "{self.leaf.certificate}"
key = "{self.leaf.key}"
serves = ["client", "federation"]

[store]
path = "{self.folder / "store"}"

[federation]
extra_ca = "{self.authority.certificate}"
public_rooms = true

[registration]
open = true
shared_secret = "{self.secret}"

[rate_limits]
enabled = false
{further}"""
        )

    def command(self) -> tuple[str, ...]:
        return (_exeunt_binary(), "serve", "--config", str(self.config))

    async def verify_store(self) -> None:
        await self.run("store", "verify")

    async def run(self, *words: str) -> str:
        """Runs a command of the binary on this server's configuration; returns what it printed."""
        process = await asyncio.create_subprocess_exec(
            *KILL_WITH_PARENT,
            *(_exeunt_binary(), *words, "--config", str(self.config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), COMMAND_DEADLINE)
        if process.returncode != 0:
            said = (output + errors).decode(errors="replace")
            raise self._failed(f"{' '.join(words)}: {said}")
        return output.decode()


class Synapse(Server):
    """Synapse on SQLite, from the interpreter that runs this harness."""

    kind = "synapse"

    @property
    def config(self) -> Path:
        return self.folder / "homeserver.yaml"

    @property
    def database(self) -> Path:
        return self.folder / "homeserver.db"

    def configure(self) -> None:
        signing_key = self.folder / "signing.key"
        if not signing_key.exists():
            with signing_key.open("w") as out:
                write_signing_keys(out, [generate_signing_key("interop")])
        log_config = self.folder / "log.yaml"
        log_config.write_text(yaml.safe_dump(_SYNAPSE_LOGGING))
        unlimited = {"per_second": 10_000, "burst_count": 10_000}
        self.config.write_text(
            yaml.safe_dump(
                {
                    "server_name": self.name,
                    "public_baseurl": f"{self.client_url}/",
                    "report_stats": False,
                    "listeners": [
                        {
                            "type": "http",
                            "port": self.bind,
                            "bind_addresses": ["127.0.0.1"],
                            "tls": True,
                            "resources": [{"names": ["client", "federation"]}],
                        }
                    ],
                    "tls_certificate_path": str(self.leaf.certificate),
                    "tls_private_key_path": str(self.leaf.key),
                    "federation_custom_ca_list": [str(self.authority.certificate)],
                    "ip_range_blacklist": [],
                    "federation_ip_range_blacklist": [],
                    "trusted_key_servers": [],
                    "signing_key_path": str(signing_key),
                    "database": {"name": "sqlite3", "args": {"database": str(self.database)}},
                    "log_config": str(log_config),
                    "pid_file": str(self.folder / "synapse.pid"),
                    "media_store_path": str(self.folder / "media"),
                    "macaroon_secret_key": self.secret,
                    "form_secret": self.secret,
                    "registration_shared_secret": self.secret,
                    "enable_registration": True,
                    "enable_registration_without_verification": True,
                    "bcrypt_rounds": 4,
                    "presence": {"enabled": False},
                    "allow_public_rooms_over_federation": True,
                    "room_list_publication_rules": [{"action": "allow"}],
                    "federation": {
                        "client_timeout": "10s",
                        "max_short_retries": 1,
                        "max_short_retry_delay": 500,
                        "max_long_retries": 2,
                        "max_long_retry_delay": "1s",
                        "destination_min_retry_interval": "1s",
                        "destination_max_retry_interval": "3s",
                        "destination_retry_multiplier": 1,
                    },
                    "rc_message": unlimited,
                    "rc_registration": unlimited,
                    "rc_joins": {"local": unlimited, "remote": unlimited},
                    "rc_joins_per_room": unlimited,
                    "rc_invites": {
                        "per_room": unlimited,
                        "per_user": unlimited,
                        "per_issuer": unlimited,
                    },
                    "rc_room_creation": unlimited,
                    "rc_login": {
                        "address": unlimited,
                        "account": unlimited,
                        "failed_attempts": unlimited,
                    },
                    "rc_federation": {
                        "window_size": 1000,
                        "sleep_limit": 10_000,
                        "sleep_delay": 1,
                        "reject_limit": 10_000,
                        "concurrent": 1000,
                    },
                }
            )
        )

    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "synapse.app.homeserver", "-c", str(self.config))

    async def verify_store(self) -> None:
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            raise self._failed(f"integrity check: {verdict}")


_SYNAPSE_LOGGING = {
    "version": 1,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s [%(request)s] %(message)s"}
    },
    "filters": {
        "context": {"()": "synapse.logging.context.LoggingContextFilter", "request": ""}
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["context"],
        }
    },
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "disable_existing_loggers": False,
}


def _exeunt_binary() -> str:
    binary = os.environ.get("EXEUNT_BIN")
    if not binary:
        raise ServerFailed("EXEUNT_BIN must name the exeunt binary")
    return str(Path(binary).resolve())


def _environment() -> dict[str, str]:
    """The caller's environment without proxies: all traffic stays on loopback."""
    return {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
