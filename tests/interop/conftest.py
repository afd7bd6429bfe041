"""Fixtures: one CA for the run, one stage of servers for a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from ca import Authority
from stage import Stage


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest_asyncio.fixture(scope="module")
async def stage(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("servers"), authority)
    try:
        yield stage
    finally:
        await stage.close()


@pytest_asyncio.fixture(autouse=True)
async def healed(stage: Stage) -> AsyncIterator[None]:
    yield
    await stage.heal()
