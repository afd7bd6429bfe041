"""Clients that people use, each through the life of an invite and a conversation on two servers."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
import pytest_asyncio
from servers import Server
from stage import UNDER_TEST, Stage

CLIENTS = Path(__file__).resolve().parent.parent / "clients"
DEADLINE = 300.0


@pytest.fixture(scope="module")
def node() -> str:
    """The Node that the clients run on."""
    setup = subprocess.run([CLIENTS / "setup.sh"], check=True, stdout=subprocess.PIPE, text=True)
    return setup.stdout.strip()


@pytest.fixture(scope="module")
def matrix_sdk() -> str:
    """The client upon matrix-sdk, built where the other builds are."""
    cache = Path(os.environ.get("EXEUNT_CACHE", Path.home() / ".cache/exeunt"))
    target = cache / "clients/target"
    manifest = CLIENTS / "matrix_sdk/Cargo.toml"
    build = ("cargo", "build", "--quiet", "--locked", "--manifest-path", manifest)
    subprocess.run([*build, "--target-dir", target], check=True)
    return str(target / "debug/exeunt-client-matrix-sdk")


@pytest_asyncio.fixture(scope="module")
async def pair(stage: Stage) -> tuple[Server, Server]:
    return await stage.add(UNDER_TEST), await stage.add(UNDER_TEST)


async def run(pair: tuple[Server, Server], *command: str) -> None:
    """Runs a client on the two servers; its status says whether it saw every step."""
    ca = str(pair[0].authority.certificate)
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "NODE_EXTRA_CA_CERTS": ca, "SSL_CERT_FILE": ca},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
    except BaseException:
        process.kill()
        raise
    assert process.returncode == 0, said.decode(errors="replace")


async def test_matrix_js_sdk(pair: tuple[Server, Server], node: str) -> None:
    here, there = (server.client_url for server in pair)
    await run(pair, node, str(CLIENTS / "js_sdk.mjs"), here, there)


async def test_matrix_sdk(pair: tuple[Server, Server], matrix_sdk: str) -> None:
    await run(pair, matrix_sdk, *(server.client_url for server in pair))


async def test_hydrogen_in_chromium(
    pair: tuple[Server, Server], node: str, tmp_path: Path
) -> None:
    here, there = (server.client_url for server in pair)
    shots = os.environ.get("EXEUNT_SCREENSHOTS", str(tmp_path))
    await run(pair, node, str(CLIENTS / "hydrogen.mjs"), here, there, shots)
