"""The sandbox over HTTP: the order in which a request is checked, and the shape of every answer.

A request is read (413), must be JSON (400), carry the tokens (401) and be within the request limit (429);
only then may it meet a fault; then its body is held against the operation's model (400) and carried out.
"""

import asyncio
import json
import logging
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vouchertools.sandbox.answers import Cut, Lost, answer_fault, problem
from vouchertools.sandbox.describe import describe
from vouchertools.sandbox.faults import Faults
from vouchertools.sandbox.operations import Answer, Operation, Operations, Refusal
from vouchertools.sandbox.operations import Scope as TokenScope
from vouchertools.sandbox.switches import Switches
from vouchertools.sandbox.times import SECOND, from_micros

PREFIX = "/api/connector/v1/"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Desk:
    """What the application needs of its server.

    Attributes
    ----------
    now
        The sandbox's clock, in microseconds since 1970.
    note
        Called with operation, status (None for a connection that is closed), request size and fault, right
        before the answer leaves.
    turn_page
        Called with the number of the page before a page of codes is read; None where nothing is to happen.
    give_cursor
        Called with each cursor that a page of codes gives out.
    drop
        Closes the connection of a client's address.
    """

    instance_id: str
    client_token: str
    scopes: Mapping[str, TokenScope]
    switches: Switches
    faults: Faults
    now: Callable[[], int]
    note: Callable[[str, int | None, int, str], None]
    turn_page: Callable[[], Callable[[int], object] | None]
    give_cursor: Callable[[str], None]
    drop: Callable[[Any], None]


class Window:
    """A request limit over a sliding window, for each token on its own.

    Parameters
    ----------
    limit
        Requests and seconds; None for no limit.
    """

    def __init__(self, limit: tuple[int, float] | None) -> None:
        self._limit = limit
        self._taken: defaultdict[str, deque[float]] = defaultdict(deque)

    def take(self, token: str, now: float) -> float:
        """Count a request at ``now``; return 0, or the seconds until one will be let in again."""
        if self._limit is None:
            return 0.0
        requests, seconds = self._limit
        taken = self._taken[token]
        while taken and taken[0] <= now - seconds:
            taken.popleft()
        if len(taken) >= requests:
            return taken[0] + seconds - now
        taken.append(now)
        return 0.0


def make_app(operations: Operations, desk: Desk) -> ASGIApp:
    """Make the application: six operations, their description, and a page to try them out."""
    api = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    desk_work = _DeskWork(desk)
    for operation in operations.all():
        endpoint: Callable[[Request], Awaitable[Response]] = partial(desk_work.serve, operation)
        api.router.add_route(PREFIX + operation.name, endpoint, methods=["POST"])

    @api.get("/openapi.json")
    async def show_description() -> JSONResponse:
        return JSONResponse(describe(operations.all(), PREFIX))

    @api.get("/docs")
    async def show_page() -> HTMLResponse:
        page = Path(__file__).with_name("docs.html").read_text(encoding="utf-8")
        return HTMLResponse(page)

    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return problem(request, error.status_code, error.detail, dict(error.headers or {}))
        logger.error("The sandbox failed at %s", request.url.path, exc_info=error)
        return problem(request, 500, f"The sandbox failed: {type(error).__name__}.")

    api.add_exception_handler(HTTPException, refuse)
    api.add_exception_handler(Exception, refuse)
    return _Envelope(api, desk)


class _Envelope:
    """Gives every answer its headers and notes it, whatever became of the request."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app = app
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        state: dict[str, Any] = {"request_id": str(uuid4()), "size": 0, "fault": "none"}
        scope["state"] = state
        operation = path.removeprefix(PREFIX)

        async def counted() -> Message:
            message = await receive()
            state["size"] += len(message.get("body", b""))
            return message

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = format_datetime(from_micros(self._desk.now()).replace(microsecond=0), usegmt=True)
                message["headers"] = [
                    *message["headers"],
                    (b"request-id", state["request_id"].encode()),
                    (b"date", date.encode()),
                    (b"vouchertools-sandbox", self._desk.instance_id.encode()),
                ]
                self._desk.note(operation, message["status"], state["size"], state["fault"])
            await send(message)

        state["note_loss"] = lambda: self._desk.note(operation, None, state["size"], state["fault"])
        await self._app(scope, counted, stamped)


class _DeskWork:
    """Carries one request through all checks."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._window = Window(desk.switches.rate_limit)

    async def serve(self, operation: Operation, request: Request) -> Response:
        try:
            raw = await self._read(request)
            body = _parse(request, raw)
            scope = self._authenticate(body)
            self._limit(body["AccessToken"])
            latency_s = self._desk.faults.draw_latency_s()
            if latency_s:
                await asyncio.sleep(latency_s)
            fault = request.state.fault = self._desk.faults.draw(operation.name)
            return await self._act(operation, request, body, scope, fault)
        except Refusal as refusal:
            return problem(request, refusal.status, refusal.message, refusal.headers)
        except ClientDisconnect:
            return Response(status_code=499)

    async def _read(self, request: Request) -> bytes:
        """Read all of the body, however large: a client that still sends would miss the answer."""
        kept: list[bytes] = []
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size <= self._desk.switches.max_body_bytes:
                kept.append(chunk)
        if size > self._desk.switches.max_body_bytes:
            raise Refusal(413, f"The body is larger than {self._desk.switches.max_body_bytes} bytes.")
        return b"".join(kept)

    def _authenticate(self, body: dict[str, Any]) -> TokenScope:
        if body.get("ClientToken") != self._desk.client_token:
            raise Refusal(401, "Invalid ClientToken")
        token = body.get("AccessToken")
        scope = self._desk.scopes.get(token) if isinstance(token, str) else None
        if scope is None:
            raise Refusal(401, "Invalid AccessToken")
        return scope

    def _limit(self, token: str) -> None:
        on_real_clock = self._desk.switches.rate_clock == "real"
        now_s = time.monotonic() if on_real_clock else self._desk.now() / SECOND
        wait_s = self._window.take(token, now_s)
        if wait_s:
            headers = {"Retry-After": str(ceil(wait_s))} if self._desk.switches.retry_after else {}
            raise Refusal(429, "The request limit of this access token is exceeded.", headers)

    async def _act(
        self, operation: Operation, request: Request, body: dict[str, Any], scope: TokenScope, fault: str
    ) -> Response:
        desk = self._desk
        if fault == "lost-before":
            return Lost(desk.drop, request.state.note_loss)
        if fault[0] in "45" and not fault.endswith("-after"):
            return answer_fault(request, fault, desk.faults.retry_after_s)
        try:
            asked = operation.request.model_validate(body)
        except ValidationError as error:
            raise Refusal(400, _explain(error)) from error
        desk.faults.settle(desk.now())
        if operation.name == "voucherCodes/getAll":
            number = desk.faults.count_page()
            turn_page = desk.turn_page()
            if turn_page is not None:
                await asyncio.to_thread(turn_page, number)
        stamp = desk.now()
        if desk.switches.stored_precision == "s":
            stamp -= stamp % SECOND
        if fault in ("late", "hang"):
            due = desk.now() + int(desk.faults.commit_late_s * SECOND)
            desk.faults.postpone(due, partial(_try_to, operation, asked, scope, stamp))
            return Lost(desk.drop, request.state.note_loss, hangs=fault == "hang")
        answer = operation.run(asked, scope, stamp)
        if answer.cursor is not None:
            desk.give_cursor(answer.cursor)
        if fault.endswith("-after") and fault != "lost-after":
            return answer_fault(request, fault, desk.faults.retry_after_s)
        return self._reply(request, answer, fault)

    def _reply(self, request: Request, answer: Answer, fault: str) -> Response:
        if fault == "lost-after":
            return Lost(self._desk.drop, request.state.note_loss)
        if fault == "truncated":
            return Cut(answer.content, media_type="application/json")
        if fault == "garbled":
            return JSONResponse({"Result": ["OK"]})
        if fault == "not-json":
            return Response("<p>OK</p>", media_type="application/json")
        if answer.is_empty and _prefers_minimal(request):
            return Response(status_code=204)
        return Response(answer.content, media_type="application/json")


def _parse(request: Request, raw: bytes) -> dict[str, Any]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal(400, "Invalid Content-Type: application/json is required.")
    try:
        body = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "Invalid JSON") from error
    if not isinstance(body, dict):
        raise Refusal(400, "Invalid JSON: the body is no object.")
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ""
    for part in first["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    return f"Invalid {place.removeprefix('.') or 'body'}: {first['msg']}"


def _prefers_minimal(request: Request) -> bool:
    preferences = ",".join(request.headers.getlist("prefer")).replace(";", ",").split(",")
    return "return=minimal" in [preference.replace(" ", "").lower() for preference in preferences]


def _try_to(operation: Operation, asked: Any, scope: TokenScope, stamp: int) -> None:
    """Carry out a request whose client has gone; nobody hears of a refusal."""
    try:
        operation.run(asked, scope, stamp)
    except Refusal:
        logger.debug("A late %s was refused", operation.name)
