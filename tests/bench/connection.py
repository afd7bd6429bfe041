"""A client that costs little beside the servers: requests by hand, one at a time, over a kept connection.

It blocks; whoever wants several at once takes a thread for each.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from servers import Server

TIMEOUT = 30.0
#: A connection that has rested for longer is made anew: servers close them after a minute or so.
MAX_IDLE = 20.0
CHUNK = 65_536


class Connection:
    """Requests to a server, whose certificate is verified."""

    def __init__(self, server: Server) -> None:
        self._host = f"localhost:{server.bind}"
        self._port = server.bind
        self._context = server.authority.client_context()
        self._socket = self._open()
        self._used = time.monotonic()
        #: What has been received, and not been read yet.
        self._buffer = b""

    def close(self) -> None:
        self._socket.close()

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """Status and JSON of the answer."""
        self.send(method, path, body, token)
        return self.receive()

    def send(self, method: str, path: str, body: Any = None, token: str = "") -> None:
        """Sends a request whose answer is received later."""
        if time.monotonic() - self._used > MAX_IDLE:
            self.close()
            self._socket = self._open()
        payload = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nAccept: application/json\r\n"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
        self._socket.sendall(head.encode() + b"\r\n" + payload)

    def receive(self) -> tuple[int, Any]:
        """Status and JSON of the answer to what was sent."""
        head = self._until(b"\r\n\r\n").lower()
        status = int(head[9:12])
        if b"\r\ntransfer-encoding: chunked" in head:
            body = b"".join(iter(self._chunk, b""))
        else:
            length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            body = self._exactly(int(length or b"0"))
        self._used = time.monotonic()
        return status, json.loads(body) if body else None

    def _open(self) -> socket.socket:
        raw = socket.create_connection(("localhost", self._port), timeout=TIMEOUT)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._context.wrap_socket(raw, server_hostname="localhost")

    def _chunk(self) -> bytes:
        """The next piece of a body in pieces; empty at its end."""
        size = int(self._until(b"\r\n").partition(b";")[0], 16)
        return self._exactly(size + 2)[:-2]

    def _until(self, end: bytes) -> bytes:
        while (found := self._buffer.find(end)) < 0:
            self._more()
        taken = self._buffer[:found]
        self._buffer = self._buffer[found + len(end) :]
        return taken

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken = self._buffer[:count]
        self._buffer = self._buffer[count:]
        return taken

    def _more(self) -> None:
        received = self._socket.recv(CHUNK)
        if not received:
            raise ConnectionError(f"{self._host} closed the connection")
        self._buffer += received
