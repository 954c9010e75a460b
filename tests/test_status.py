"""The status table: complete, consistent with the errors, and with one exit code per error."""

from __future__ import annotations

import pytest

from reliable.errors import Outcome, RequestError
from reliable.status import STATUS_TABLE, ExitCode, Retry, Status

FINAL = [status for status, rule in STATUS_TABLE.items() if rule.retry is not Retry.NOT_FINAL]
ENDING = [status for status in FINAL if STATUS_TABLE[status].error is not None]


def test_every_status_has_its_row_in_the_order_of_the_wire_values() -> None:
    """A status without a row would be an answer that nobody knows how to take."""
    assert list(STATUS_TABLE) == list(Status)
    assert sorted(Status) == list(Status)


def test_a_status_fits_into_its_byte() -> None:
    """The answer frame has one byte for it."""
    assert all(0 <= status < 256 for status in Status)


@pytest.mark.parametrize("status", Status, ids=lambda s: s.name)
def test_a_row_is_complete(status: Status) -> None:
    """News about an attempt ends nothing; everything else ends with the reply, or with an error and a code."""
    rule = STATUS_TABLE[status]
    assert rule.meaning
    if rule.retry is Retry.NOT_FINAL:
        assert rule.outcome is None and rule.error is None and rule.exit_code is None
    elif status is Status.OK:
        assert rule.outcome is Outcome.EXECUTED and rule.error is None and rule.exit_code is ExitCode.OK
    else:
        assert rule.outcome is not None
        assert rule.error is not None and issubclass(rule.error, RequestError)
        assert rule.exit_code not in (None, ExitCode.OK)


@pytest.mark.parametrize("status", ENDING, ids=lambda s: s.name)
def test_an_error_says_by_default_what_its_status_says(status: Status) -> None:
    """The two tables were written apart.

    A status after which the client goes on by itself may prove more about its own attempt than the error may claim
    about the whole call: there the error's default is the cautious one.
    """
    rule = STATUS_TABLE[status]
    assert rule.error is not None
    allowed = {rule.outcome} if rule.retry is Retry.NEVER else {rule.outcome, Outcome.UNKNOWN}
    assert rule.error().outcome in allowed


def test_a_status_that_lets_the_client_go_on_proves_that_nothing_ran() -> None:
    """Anything else would be a repetition on suspicion."""
    for status in Status:
        if STATUS_TABLE[status].retry is Retry.BY_OUTCOME:
            assert STATUS_TABLE[status].outcome is Outcome.NOT_EXECUTED, status


def test_an_error_has_one_exit_code_whichever_status_led_to_it() -> None:
    """Scripts branch on the code; the way the error came about is not theirs to know."""
    codes: dict[type[RequestError], set[ExitCode | None]] = {}
    for status in ENDING:
        rule = STATUS_TABLE[status]
        assert rule.error is not None
        codes.setdefault(rule.error, set()).add(rule.exit_code)
    assert {error.__name__: len(found) for error, found in codes.items() if len(found) != 1} == {}


def test_no_error_of_the_table_is_the_parent_of_another() -> None:
    """A lookup along the class tree finds one row, in whatever order it is done."""
    kinds = {rule.error for rule in STATUS_TABLE.values() if rule.error is not None}
    assert [(a, b) for a in kinds for b in kinds if a is not b and issubclass(a, b)] == []


def test_exit_codes_are_those_that_shells_can_tell() -> None:
    """Above 125 shells have meanings of their own; 130 is the one we mean: interrupted."""
    assert len({int(code) for code in ExitCode}) == len(ExitCode)
    assert all(code < 126 or code is ExitCode.INTERRUPTED for code in ExitCode)
    assert (ExitCode.OK, ExitCode.USAGE) == (0, 2)
