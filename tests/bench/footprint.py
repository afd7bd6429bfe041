"""What Exeunt costs beside a Synapse of the same run: start-up, memory, CPU and sizes.

Times are figures, never asserted. `--check` asserts the budget on memory and on the image.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import load
from ca import Authority
from link import port_of, reserve_port
from process import Measured, session
from servers import Exeunt, Server, Synapse

STARTS = 5
IDLE_SECONDS = 10
MB = 1_000_000
#: The names that `deploy/` may have given the image of each kind; the first that is there counts.
IMAGES = {
    "exeunt": (os.environ.get("EXEUNT_IMAGE", "exeunt:latest"),),
    "synapse": (
        os.environ.get("SYNAPSE_IMAGE", "matrixdotorg/synapse:v1.163.2"),
        "exeunt-synapse:v1.163.2",
    ),
}

BUDGET_START_UP = 0.5
BUDGET_IDLE = 40 * MB
BUDGET_IMAGE = 60 * MB


@dataclass
class Footprint:
    """Seconds and bytes of one server; None where there is nothing to measure."""

    version: str = ""
    start_up: float = 0.0
    starts: list[float] = field(default_factory=list)
    idle_memory: int = 0
    #: After each phase of the load, by its kind of operation.
    phase_memory: dict[str, int] = field(default_factory=dict)
    loaded_memory: int = 0
    peak_memory: int = 0
    settled_memory: int = 0
    #: Processor seconds per operation, by kind of operation.
    cpu: dict[str, float] = field(default_factory=dict)
    cpu_total: float = 0.0
    binary: int | None = None
    image: int | None = None


class Bench:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = Authority(folder / "ca")
        self._count = 0

    async def measure(self, kind: type[Server]) -> Footprint:
        sizes = (image_size(name) for name in IMAGES[kind.kind])
        found = Footprint(image=next((size for size in sizes if size is not None), None))
        if kind is Exeunt:
            found.binary = Path(os.environ["EXEUNT_BIN"]).stat().st_size
        for number in range(STARTS):
            note(f"{kind.kind}: start {number + 1} of {STARTS}")
            async with Measured(self._server(kind)) as process:
                found.starts.append(process.start_up)
        found.start_up = statistics.median(found.starts)
        async with Measured(self._server(kind)) as process:
            note(f"{kind.kind}: idle for {IDLE_SECONDS} s")
            await asyncio.sleep(IDLE_SECONDS)
            found.idle_memory = process.memory()
            await self._load(process, found)
        return found

    async def _load(self, process: Measured, found: Footprint) -> None:
        async with session(process.server) as http, asyncio.timeout(load.DEADLINE):
            async with http.get("/_matrix/federation/v1/version") as answer:
                found.version = (await answer.json())["server"]["version"]
            began = process.cpu()
            for name, operations in load.Load(http).phases():
                note(f"{process.server.kind}: {name}, {len(operations)} times")
                before = process.cpu()
                await load.run(operations)
                found.cpu[name] = (process.cpu() - before) / len(operations)
                found.phase_memory[name] = process.memory()
            found.cpu_total = process.cpu() - began
            found.loaded_memory = process.memory()
            found.peak_memory = process.peak_memory()
        await asyncio.sleep(IDLE_SECONDS)
        found.settled_memory = process.memory()

    def _server(self, kind: type[Server]) -> Server:
        """A server that never ran, with an empty store."""
        self._count += 1
        with reserve_port() as holder:
            port = port_of(holder)
        folder = self._folder / f"{self._count}-{kind.kind}"
        return kind(folder, self._authority, f"localhost:{port}", port, secret="footprint")


def image_size(name: str) -> int | None:
    command = ("docker", "image", "inspect", "--format", "{{.Size}}", name)
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return None
    return int(asked.stdout) if asked.returncode == 0 else None


def note(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def table(found: dict[str, Footprint]) -> str:
    def size(value: int | None) -> str:
        return "not built" if value is None else f"{value / MB:.1f} MB"

    kinds = list(found.values())
    rows = [
        ("version", [f.version for f in kinds]),
        (f"start-up, median of {STARTS}", [f"{f.start_up:.3f} s" for f in kinds]),
        (f"memory, idle for {IDLE_SECONDS} s", [size(f.idle_memory) for f in kinds]),
        *(
            (f"memory, after: {name}", [size(f.phase_memory[name]) for f in kinds])
            for name in kinds[0].phase_memory
        ),
        ("memory, after the load", [size(f.loaded_memory) for f in kinds]),
        ("memory, most so far", [size(f.peak_memory) for f in kinds]),
        (f"memory, {IDLE_SECONDS} s after the load", [size(f.settled_memory) for f in kinds]),
        *(
            (f"CPU per operation: {name}", [f"{f.cpu[name] * 1000:.2f} ms" for f in kinds])
            for name in kinds[0].cpu
        ),
        ("CPU, whole load", [f"{f.cpu_total:.2f} s" for f in kinds]),
        ("binary", ["" if f.binary is None else size(f.binary) for f in kinds]),
        ("image", [size(f.image) for f in kinds]),
    ]
    lines = [("", list(found)), *rows]
    return "\n".join(
        "".join((f"{label:<34}", *(f"{cell:>16}" for cell in cells))).rstrip()
        for label, cells in lines
    )


def over_budget(found: Footprint) -> list[str]:
    """What the budget forbids."""
    over = []
    if found.idle_memory >= BUDGET_IDLE:
        idle = found.idle_memory / MB
        over.append(f"idle memory is {idle:.1f} MB, not below {BUDGET_IDLE // MB} MB")
    if found.image is None:
        over.append(f"there is no image {IMAGES['exeunt'][0]} to weigh; `make image` builds it")
    elif found.image >= BUDGET_IMAGE:
        over.append(f"the image is {found.image / MB:.1f} MB, not below {BUDGET_IMAGE // MB} MB")
    return over


async def measure(kinds: list[type[Server]]) -> dict[str, Footprint]:
    with tempfile.TemporaryDirectory(prefix="exeunt-footprint-") as folder:
        bench = Bench(Path(folder))
        return {kind.kind: await bench.measure(kind) for kind in kinds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when over the budget")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--alone", action="store_true", help="without Synapse")
    options = parser.parse_args()

    busy = os.getloadavg()[0]
    found = asyncio.run(measure([Exeunt] if options.alone else [Exeunt, Synapse]))
    print(table(found))
    ours = found["exeunt"]
    verdict = "pass" if ours.start_up < BUDGET_START_UP else "fail"
    print(f"\nstart-up {ours.start_up:.3f} s against {BUDGET_START_UP} s: {verdict} (a figure)")
    print(f"{os.cpu_count()} cores, load average {busy:.1f} at the start")
    if options.json:
        record = {
            "load": {
                "users": load.USERS,
                "rooms": load.ROOMS,
                "joins_per_room": load.JOINS_PER_ROOM,
                "messages": load.MESSAGES,
                "full_syncs": load.USERS * load.SYNCS_PER_USER,
            },
            "machine": {"cores": os.cpu_count(), "load_average": busy},
            "servers": {kind: asdict(footprint) for kind, footprint in found.items()},
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    if not options.check:
        return 0
    over = over_budget(ours)
    for finding in over:
        print(f"over budget: {finding}")
    if not over:
        budget = f"idle memory below {BUDGET_IDLE // MB} MB, image below {BUDGET_IMAGE // MB} MB"
        print(f"{budget}: pass")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
