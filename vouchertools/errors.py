"""Every exception of the package, and the one place that turns an answer of the API into one.

Each class is also the builtin that fits it, so that ``except ValueError`` and friends work::

    VoucherToolsError
     +-- InputError (ValueError)              an argument, a frame or a file that cannot be used
     +-- SettingsError (ValueError)           MEWS_* missing, half set or unsafe
     +-- ApiError (RuntimeError)              the API refused, failed, or could not be understood
     |    +-- BadRequestError (ValueError)         400
     |    +-- UnauthorizedError (PermissionError)  401
     |    +-- ForbiddenError (PermissionError)     403
     |    +-- NotFoundError (LookupError)          404, 405
     |    +-- ServerTimeoutError (TimeoutError)    408
     |    +-- ConflictError                        409
     |    +-- TooLargeError                        413
     |    +-- RateLimitedError                     429
     |    +-- ServerError                          5xx
     |    +-- UnreadableAnswerError (ValueError)   an answer that is not what the contract promises
     |    +-- NoAnswerError (ConnectionError)      lost connection or timeout: the server may have acted
     |         +-- UnreachableError                no connection at all: the server never saw the request
     +-- IncompleteReadError (RuntimeError)   a pull that could not be proved complete
     +-- CacheError (OSError)                 the cache folder or one of its files
     +-- PlanError (ValueError)               a plan that cannot be made or must not be applied
     +-- JournalError (OSError)               the journal cannot be read or written
     +-- RunError (RuntimeError)              a run that had to stop; its ``run`` attribute is what was done
"""

from typing import Any


class VoucherToolsError(Exception):
    """Base class of everything that vouchertools raises."""


class InputError(VoucherToolsError, ValueError):
    """An argument, a frame or a file cannot be used as it is; nothing was changed."""


class SettingsError(VoucherToolsError, ValueError):
    """The ``MEWS_*`` settings are missing, half set or unsafe; nothing was sent."""


class ApiError(VoucherToolsError, RuntimeError):
    """The API refused a request, failed at it, or answered something unreadable.

    Attributes
    ----------
    status_code
        HTTP status; None when no answer came.
    message
        The server's own ``Message``, word for word; else what was wrong with the answer.
    request_id
        The server's ``Request-Id``: what Mews support asks for. None when no answer came.
    retry_after
        Seconds to wait, as the server said; None when it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        advice: str = "",
    ) -> None:
        self.message = message
        self.status_code = status_code
        self.request_id = request_id
        self.retry_after = retry_after
        self.advice = advice
        super().__init__(message)

    def __str__(self) -> str:
        facts = [f"HTTP {self.status_code}"] if self.status_code is not None else []
        facts += [f"Request-Id {self.request_id}"] if self.request_id else []
        text = f"{self.message.rstrip('.')} ({', '.join(facts)})." if facts else self.message
        return f"{text} {self.advice}".rstrip()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))


class BadRequestError(ApiError, ValueError):
    """400: malformed, or an id that does not exist or is in the wrong state."""


class UnauthorizedError(ApiError, PermissionError):
    """401: the tokens are invalid, expired, disabled, or may not use this operation."""


class ForbiddenError(ApiError, PermissionError):
    """403: a business rule refused; the message is meant for the person at the screen."""


class NotFoundError(ApiError, LookupError):
    """404 or 405: no such operation at this address."""


class ServerTimeoutError(ApiError, TimeoutError):
    """408: the server took too long to prepare the data."""


class ConflictError(ApiError):
    """409: the data has changed meanwhile."""


class TooLargeError(ApiError):
    """413: the body is too large."""


class RateLimitedError(ApiError):
    """429: over the request limit of the access token."""


class ServerError(ApiError):
    """5xx: a fault on the server's side."""


class UnreadableAnswerError(ApiError, ValueError):
    """An answer came, but not one that the contract promises: HTML, cut off, another shape."""


class NoAnswerError(ApiError, ConnectionError):
    """The request left and no answer came back: the server may have acted on it."""


class UnreachableError(NoAnswerError):
    """No connection could be made: the server has not seen the request."""


class IncompleteReadError(VoucherToolsError, RuntimeError):
    """A pull could not be proved complete; nothing partial is returned."""


class CacheError(VoucherToolsError, OSError):
    """The cache folder, or one of its files, cannot be used."""


class PlanError(VoucherToolsError, ValueError):
    """A plan that cannot be made, or that must not be applied as it stands."""


class JournalError(VoucherToolsError, OSError):
    """The journal cannot be read or written; no request leaves without it."""


class RunError(VoucherToolsError, RuntimeError):
    """A run had to stop before its end.

    Attributes
    ----------
    run
        The Run with everything that was done until then.
    """

    def __init__(self, message: str, *, run: Any = None) -> None:
        self.run = run
        super().__init__(message)


_BY_STATUS: dict[int, tuple[type[ApiError], str]] = {
    400: (BadRequestError, ""),
    401: (
        UnauthorizedError,
        "Check MEWS_CLIENT_TOKEN and MEWS_ACCESS_TOKEN, and that the integration is enabled in Mews.",
    ),
    403: (ForbiddenError, ""),
    404: (NotFoundError, "Check MEWS_PLATFORM_ADDRESS: the operation is not at this address."),
    405: (NotFoundError, "Check MEWS_PLATFORM_ADDRESS: the operation is not at this address."),
    408: (ServerTimeoutError, "Ask for less: a smaller count or a shorter interval."),
    409: (ConflictError, "The data changed meanwhile: read it again, then decide."),
    413: (TooLargeError, "Send smaller batches."),
    429: (RateLimitedError, "Wait before the next request; other programs may share this access token."),
}


def error_for_status(
    status_code: int,
    message: str,
    *,
    request_id: str | None = None,
    retry_after: float | None = None,
) -> ApiError:
    """The exception for an answer with this HTTP status (anything but 2xx)."""
    if status_code in _BY_STATUS:
        kind, advice = _BY_STATUS[status_code]
    elif status_code >= 500:
        kind, advice = ServerError, "The fault is on the server's side: try again later."
    else:
        kind, advice = (
            UnreadableAnswerError,
            "This status is not part of the Mews contract: is a proxy in between?",
        )
    return kind(
        message,
        status_code=status_code,
        request_id=request_id,
        retry_after=retry_after,
        advice=advice,
    )


def _rebuild(kind: type[ApiError], message: str, state: dict[str, Any]) -> ApiError:
    error = kind(message)
    error.__dict__.update(state)
    return error
