"""Errors become one line and the documented code."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from reliable.cli.exits import describe, exit_code, one_line
from reliable.errors import (
    AttemptsExhausted,
    BrokerUnreachable,
    ClosedError,
    Outcome,
    PayloadError,
    RequestError,
    RequestRefused,
    ServiceNotFound,
    WorkerFailed,
)
from reliable.status import STATUS_TABLE, ExitCode, Status

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"


@pytest.mark.parametrize("status", [status for status, rule in STATUS_TABLE.items() if rule.error is not None])
def test_every_status_that_ends_a_call_exits_with_the_code_of_the_table(status: Status) -> None:
    """Scripts branch on the code: it must be the one that the table promises."""
    rule = STATUS_TABLE[status]
    assert rule.error is not None
    assert exit_code(rule.error("no")) is rule.exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BrokerUnreachable("x"), ExitCode.UNREACHABLE),
        (AttemptsExhausted("x"), ExitCode.TIMEOUT),
        (RequestRefused("x"), ExitCode.REFUSED),
        (ClosedError("x"), ExitCode.FAILURE),
        (PayloadError("x"), ExitCode.FAILURE),
        (RequestError("x"), ExitCode.FAILURE),
        (OSError(errno.EADDRINUSE, "in use"), ExitCode.ADDRESS_IN_USE),
        (OSError(errno.EACCES, "no"), ExitCode.FAILURE),
    ],
)
def test_errors_without_a_status_have_a_code_too(error: Exception, code: ExitCode) -> None:
    """What the client finds out alone must not end up as a general failure."""
    assert exit_code(error) is code


def test_a_request_error_tells_class_outcome_attempts_and_story() -> None:
    """The user decides on a retry from this line alone."""
    error = ServiceNotFound("no worker", attempts=2, elapsed_s=1.5, retry_after_s=0.25, story=("asked a", "asked b"))
    line = describe(error)
    assert line == (
        "ServiceNotFound (not executed, 2 attempts, 1.50 s, retry after 0.2 s): no worker [story: asked a; asked b]"
    )


def test_a_failed_handler_is_named_once() -> None:
    """The remote text is what helps, and it may or may not be in the message already."""
    error = WorkerFailed("the handler failed", outcome=Outcome.EXECUTED)
    error.remote_type, error.remote_message = "ValueError", "bad\ninput"
    assert describe(error).endswith("the handler failed: ValueError: bad input")
    error = WorkerFailed("ValueError: odd")
    error.remote_type, error.remote_message = "ValueError", "odd"
    assert describe(error).count("odd") == 1


def test_text_of_other_machines_cannot_break_the_line_or_the_terminal() -> None:
    """An error message may hold whatever a handler put into it."""
    assert one_line("a\nb\x1b[31m\tc\r") == "a b [31m c"


def test_the_page_lists_every_exit_code() -> None:
    """A code that is not documented cannot be relied on."""
    listed = {int(number) for number in re.findall(r"^\| (\d+) \|", _PAGE.read_text(), re.MULTILINE)}
    assert listed == {int(code) for code in ExitCode}
