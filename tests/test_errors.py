"""Errors: which, what they say, and that they travel."""

import copy
import inspect
import pickle
import re

import pytest

from vouchertools import errors
from vouchertools.errors import (
    ApiError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    RunError,
    ServerError,
    ServerTimeoutError,
    TooLargeError,
    UnauthorizedError,
    UnreadableAnswerError,
    VoucherToolsError,
    error_for_status,
)

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]


@pytest.mark.parametrize(
    ("status", "kind", "builtin"),
    [
        (400, BadRequestError, ValueError),
        (401, UnauthorizedError, PermissionError),
        (403, ForbiddenError, PermissionError),
        (404, NotFoundError, LookupError),
        (405, NotFoundError, LookupError),
        (408, ServerTimeoutError, TimeoutError),
        (409, ConflictError, RuntimeError),
        (413, TooLargeError, RuntimeError),
        (429, RateLimitedError, RuntimeError),
        (500, ServerError, RuntimeError),
        (503, ServerError, RuntimeError),
        (599, ServerError, RuntimeError),
        (302, UnreadableAnswerError, ValueError),
        (418, UnreadableAnswerError, ValueError),
        (451, UnreadableAnswerError, ValueError),
    ],
)
def test_each_status_is_an_error_of_its_own_that_is_also_the_fitting_builtin(
    status: int, kind: type[ApiError], builtin: type[Exception]
) -> None:
    error = error_for_status(status, "No.", request_id="r-1", retry_after=2.5)
    assert type(error) is kind
    assert isinstance(error, builtin)
    assert (error.status_code, error.message, error.request_id, error.retry_after) == (
        status,
        "No.",
        "r-1",
        2.5,
    )


def test_an_error_says_what_happened_to_which_request_and_what_to_do() -> None:
    error = error_for_status(401, "Invalid AccessToken.", request_id="r-1")
    assert str(error).startswith("Invalid AccessToken (HTTP 401, Request-Id r-1). Check MEWS_CLIENT_TOKEN")
    assert str(error_for_status(400, "Invalid Count")) == "Invalid Count (HTTP 400)."
    assert str(ApiError("Lost.")) == "Lost."


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_the_one_root_and_the_place_in_the_tree_that_is_drawn(kind: type[Exception]) -> None:
    assert issubclass(kind, VoucherToolsError)
    drawn = re.search(rf"\b{kind.__name__}(?: \((\w+)\))?", errors.__doc__ or "")
    assert drawn is not None
    if drawn[1]:
        assert drawn[1] in {base.__name__ for base in kind.__mro__}


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 408, 409, 413, 429, 500])
def test_errors_survive_pickling_and_copying(status: int) -> None:
    error = error_for_status(status, "No.", request_id="r-1", retry_after=2.5)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert (str(twin), vars(twin), twin.args) == (str(error), vars(error), error.args)


def test_a_run_error_keeps_its_run_when_pickled() -> None:
    twin = pickle.loads(pickle.dumps(RunError("Stopped.", run="what was done")))
    assert (str(twin), twin.run) == ("Stopped.", "what was done")
