"""A server that breaks the contract, byte by byte."""

import socket
import threading
from collections.abc import Callable
from typing import Any

DATE = "Fri, 01 Mar 2024 12:00:00 GMT"
CLIENT_TOKEN = "C11E47-0123456789ABCDEF"
ACCESS_TOKEN = "ACCE55-FEDCBA9876543210"

Reply = bytes | None | Callable[[bytes], bytes | None]


def answer(
    body: bytes | str = b"{}",
    status: int = 200,
    *,
    date: str | None = DATE,
    length: int | None = None,
    **headers: str,
) -> bytes:
    """An answer as it leaves; `length` lies about the length of the body."""
    content = body.encode() if isinstance(body, str) else body
    lines = {
        "Content-Length": str(len(content) if length is None else length),
        "Request-Id": "r-1",
        "Connection": "close",
        **({} if date is None else {"Date": date}),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + content


class RawServer:
    """Gives each request the next of some replies, and the last one for ever; None closes the connection.

    Attributes
    ----------
    bodies
        The requests' bodies.
    """

    def __init__(self, *replies: Reply, port: int = 0) -> None:
        self._replies = list(replies)
        self.bodies: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "RawServer":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as file:
                connection.settimeout(10)
                length = 0
                while (line := file.readline().lower().strip()) != b"":
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                body = file.read(length)
                self.bodies.append(body)
                reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
                content = reply(body) if callable(reply) else reply
                if content is not None:
                    connection.sendall(content)
