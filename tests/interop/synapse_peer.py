"""Runs one Synapse in the foreground until SIGTERM or SIGINT, as a peer for demonstrations.

Prints `ready <client_url>` to standard output once it serves.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from ca import Authority
from servers import Synapse


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="server name, such as localhost:PORT")
    parser.add_argument("--bind", required=True, type=int, help="loopback port to listen on")
    parser.add_argument("--ca-dir", required=True, type=Path, help="holds ca.pem and ca.key")
    parser.add_argument("--data", required=True, type=Path, help="where Synapse keeps its files")
    parser.add_argument("--secret", required=True, help="shared secret for registration")
    return parser.parse_args()


async def serve(args: argparse.Namespace) -> int:
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    authority = Authority(args.ca_dir.resolve())
    server = Synapse(args.data.resolve(), authority, args.name, args.bind, args.secret)
    await server.start()
    print(f"ready {server.client_url}", flush=True)
    stopping = asyncio.create_task(told_to_stop.wait())
    dying = asyncio.create_task(server.wait())
    await asyncio.wait({stopping, dying}, return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    if not server.running:
        return 1
    await server.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(serve(arguments())))
