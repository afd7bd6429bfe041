"""A TCP proxy that owns the public port of a server's name and can break in several ways.

The name `localhost:PORT` is the proxy's port; the server itself listens elsewhere. With one
link per server, cutting A's link keeps B from reaching A while A still reaches B.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct

CHUNK = 64 * 1024
RST_ON_CLOSE = struct.pack("ii", 1, 0)


def reserve_port() -> socket.socket:
    """Binds a free loopback port without listening.

    While the socket is open nobody is given the port by chance, connections to it are
    refused, and a process that sets SO_REUSEADDR (as servers do) can listen on it.
    """
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def port_of(holder: socket.socket) -> int:
    return holder.getsockname()[1]


class Mode(enum.Enum):
    PASS = "pass"
    REFUSE = "refuse"
    BLACK_HOLE = "black hole"
    RESET = "reset"


class Link:
    """Forwards the port that it owns to `target`, for as long as it is told to."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._holder = reserve_port()
        self.port = port_of(self._holder)
        self._mode = Mode.PASS
        self._delay = 0.0
        self._flowing = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        await self._enter(Mode.PASS)

    async def cut(self) -> None:
        """Refuses new connections and drops those that are open."""
        await self._enter(Mode.REFUSE)

    async def black_hole(self) -> None:
        """Accepts connections, and lets no byte through until restored."""
        await self._enter(Mode.BLACK_HOLE)

    async def reset(self) -> None:
        """Answers every connection, open or new, with a TCP reset."""
        await self._enter(Mode.RESET)

    def delay(self, seconds: float) -> None:
        """Holds each chunk back; 0 takes the delay away."""
        self._delay = seconds

    async def restore(self) -> None:
        self._delay = 0.0
        await self._enter(Mode.PASS)

    async def close(self) -> None:
        await self._enter(Mode.REFUSE)
        self._holder.close()

    async def _enter(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.PASS:
            self._flowing.set()
        else:
            self._flowing.clear()
        if mode in (Mode.REFUSE, Mode.RESET):
            await self._drop_connections()
        if mode is Mode.REFUSE:
            self._stop_listening()
        elif self._listener is None:
            self._listener = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, reuse_address=True
            )

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _drop_connections(self) -> None:
        dropped = list(self._connections)
        for task in dropped:
            task.cancel()
        await asyncio.gather(*dropped, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if self._mode is Mode.RESET:
                return
            await self._flowing.wait()
            await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # a dropped connection is what this class is for
        finally:
            self._connections.discard(task)
            _abort(writer, with_reset=self._mode is Mode.RESET)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, far_writer))
                pumps.create_task(self._pump(far_reader, writer))
        except* OSError:
            pass  # one side went away; both are closed
        finally:
            _abort(far_writer, with_reset=False)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._flowing.wait()
            writer.write(chunk)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()


def _abort(writer: asyncio.StreamWriter, *, with_reset: bool) -> None:
    if with_reset:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        writer.transport.abort()
    else:
        writer.close()
