"""Answers that are not a success: refusals, injected faults, and connections that break."""

from collections.abc import Callable
from typing import Any

from fastapi import Request, Response
from starlette.responses import HTMLResponse, JSONResponse
from starlette.types import Receive, Scope, Send

#: What a proxy answers instead of the API, by its status.
PROXY_PAGES = {502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}


def problem(request: Request, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Refuse in the API's own words."""
    content = {"Message": message, "RequestId": request.state.request_id}
    return JSONResponse(content, status, headers)


def answer_fault(request: Request, fault: str, retry_after_s: int) -> Response:
    """Answer the status that a fault is named after."""
    status = int(fault[:3])
    if status in PROXY_PAGES:
        title = f"{status} {PROXY_PAGES[status]}"
        page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
        return HTMLResponse(page, status)
    headers = {"Retry-After": str(retry_after_s)} if fault == "429" else {}
    return problem(request, status, f"Injected fault {fault}.", headers)


class Lost(Response):
    """No answer: the connection is closed, at once or when the client has gone away."""

    def __init__(self, drop: Callable[[Any], None], note: Callable[[], None], *, hangs: bool = False) -> None:
        super().__init__()
        self._drop = drop
        self._note = note
        self._hangs = hangs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return when the connection is gone."""
        self._note()
        if not self._hangs:
            self._drop(scope["client"])
        while (await receive())["type"] != "http.disconnect":
            pass


class Cut(Response):
    """Half of the answer under the headers of the whole; the server then closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return without having sent the rest."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
