"""A TCP proxy before an MLflow server, or before nothing: it can forward, refuse, hang, answer
500, or answer late.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Literal

Mode = Literal["forward", "refuse", "hang", "500", "late"]
ERROR_500 = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Listens on a free port of the loopback interface.

    Args:
        port: of the server behind it; 0 means that there is none.
        mode: what it does with each request; may be changed at any time.
        late_seconds: how long it holds a request in the mode `late`.

    Attributes:
        num_requests: what it has seen, whatever it did with it.
    """

    def __init__(self, port: int = 0, mode: Mode = "forward", late_seconds: float = 30.0) -> None:
        self.mode = mode
        self.num_requests = 0
        self._port, self._late_seconds = port, late_seconds
        self._is_open = True
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End it with all its connections."""
        self._is_open = False
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while self._is_open:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            self._sockets.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Treat each piece that the client sends by the mode of that moment."""
        server: socket.socket | None = None
        with contextlib.suppress(OSError), contextlib.closing(client):
            while data := client.recv(1 << 20):
                self.num_requests += 1
                mode = self.mode
                if mode == "refuse":
                    return
                if mode == "500":
                    client.sendall(ERROR_500)
                    return
                if mode == "hang":
                    while self.mode == "hang" and self._is_open:
                        time.sleep(0.02)
                if mode == "late":
                    time.sleep(self._late_seconds)
                if server is None:
                    server = socket.create_connection(("127.0.0.1", self._port))
                    self._sockets.append(server)
                    threading.Thread(target=_pump, args=(server, client), daemon=True).start()
                server.sendall(data)
        if server is not None:
            with contextlib.suppress(OSError):
                server.shutdown(
                    socket.SHUT_WR
                )  # what it was sent it works on, though nobody waits for the answer


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError), contextlib.closing(source):
        while data := source.recv(1 << 20):
            with contextlib.suppress(OSError):
                target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxied(port: int = 0, mode: Mode = "forward", late_seconds: float = 30.0) -> Iterator[Proxy]:
    """A proxy for the life of the block."""
    proxy = Proxy(port, mode, late_seconds)
    try:
        yield proxy
    finally:
        proxy.close()
