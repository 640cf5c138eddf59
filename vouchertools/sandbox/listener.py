"""uvicorn in a thread: a server on loopback that starts and stops with its owner."""

import asyncio
import os
import socket
import threading
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

#: How long to wait for uvicorn to come up or to go down.
PATIENCE_S = 30.0


class Listener:
    """One uvicorn in one thread, listening on 127.0.0.1.

    Parameters
    ----------
    port
        0 for any free one.

    Raises
    ------
    OSError
        The port is taken.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", port))
        except OSError as error:
            self._socket.close()
            raise OSError(
                error.errno, f"Port {port} of 127.0.0.1 cannot be used: {error.strerror}"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self._connections: dict[Any, asyncio.Transport] = {}
        self._uvicorn: _Uvicorn | None = None
        self._thread: threading.Thread | None = None

    def start(self, app: ASGIApp) -> None:
        """Serve ``app``; return when it can be reached."""
        config = uvicorn.Config(
            app,
            http=_protocol_that_registers(self._connections),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            date_header=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=120,
        )
        self._uvicorn = _Uvicorn(config)
        sockets = [self._socket]
        self._thread = threading.Thread(
            target=self._uvicorn.run, args=(sockets,), name=f"vouchertools-sandbox-{self.port}", daemon=True
        )
        self._thread.start()
        if not self._uvicorn.is_up.wait(PATIENCE_S):
            raise RuntimeError(f"The sandbox did not come up on port {self.port}.")

    def stop(self) -> None:
        """Close every connection and the port; return when the thread has ended."""
        if self._uvicorn is None or self._thread is None:
            self._socket.close()
            return
        self._uvicorn.stop(self._connections)
        self._thread.join(PATIENCE_S)
        self._socket.close()

    def drop(self, client: Any) -> None:
        """Close the connection of a client's address unanswered; called from the server's own thread."""
        transport = self._connections.get(client)
        if transport is not None:
            transport.abort()


class _Uvicorn(uvicorn.Server):
    """A uvicorn that says when it is up and stops at once."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.is_up.set()

    async def main_loop(self) -> None:
        await self._leave.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()

    def stop(self, connections: dict[Any, asyncio.Transport]) -> None:
        def leave() -> None:
            self.should_exit = True
            for transport in list(connections.values()):
                transport.abort()
            self._leave.set()

        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(leave)


def _protocol_that_registers(connections: dict[Any, asyncio.Transport]) -> type[asyncio.Protocol]:
    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            connections[self.client] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            connections.pop(self.client, None)
            super().connection_lost(exc)

    return Protocol
