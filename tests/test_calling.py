"""What is checked and filled in before a call reaches an engine."""

from __future__ import annotations

import math

import pytest

from reliable.calling import UNSET, CallOptions, ClientSetup, Timeout, abandoned, unwrap
from reliable.config import ClientConfig
from reliable.errors import Outcome, RequestAbandoned
from reliable.payload import MSGPACK
from reliable.protocol.events import CallFinished, StartJob
from reliable.request import Request, request_context

_BROKER = "tcp://127.0.0.1:5555"


def _setup(timeout: Timeout = UNSET, config: ClientConfig | None = None) -> ClientSetup:
    return ClientSetup([_BROKER], timeout, config, MSGPACK, None, lambda size: bytes(size))


@pytest.mark.parametrize(
    ("of_client", "of_call", "deadline"),
    [(UNSET, UNSET, 130.0), (5.0, UNSET, 105.0), (5.0, 2.0, 102.0), (5.0, None, None), (None, UNSET, None)],
)
def test_the_nearest_timeout_counts(of_client: Timeout, of_call: Timeout, deadline: float | None) -> None:
    """Call, then client, then settings; and None only where somebody wrote it."""
    submit = _setup(of_client).submit("s", [b"x"], CallOptions(timeout=of_call), 100.0)
    assert submit.deadline == deadline


def test_an_infinite_timeout_is_none() -> None:
    """Engines and wire know no infinity."""
    assert _setup().submit("s", [b""], CallOptions(timeout=math.inf), 100.0).deadline is None


@pytest.mark.parametrize("timeout", [0, -1.0, math.nan])
def test_a_timeout_that_is_no_time_is_refused(timeout: float) -> None:
    """Zero too: it would mean "at once, for ever"."""
    with pytest.raises(ValueError, match="positive number of seconds"):
        _setup(timeout)
    with pytest.raises(ValueError, match="positive number of seconds"):
        _setup().submit("s", [b""], CallOptions(timeout=timeout), 0.0)


@pytest.mark.parametrize(
    ("inherited", "timeout", "deadline"), [(101.0, 5.0, 101.0), (120.0, 5.0, 105.0), (101.0, None, 101.0)]
)
def test_a_call_from_a_handler_inherits_the_earlier_deadline(
    inherited: float, timeout: float | None, deadline: float
) -> None:
    """Also where the inner call has no limit of its own."""
    request = Request(StartJob(job=1, service=b"s", body=[b""], deadline=inherited), lambda _: None)
    token = request_context.set(request)
    try:
        assert _setup().submit("s", [b""], CallOptions(timeout=timeout), 100.0).deadline == deadline
    finally:
        request_context.reset(token)


def test_options_that_are_not_given_keep_those_of_the_view() -> None:
    """None for a flag is "not given"; None for the timeout is "no limit"."""
    view = CallOptions(timeout=1.0, idempotent=True, fail_fast=True)
    assert view.changed(UNSET, None, None) == view
    assert view.changed(None, False, False) == CallOptions(timeout=None, idempotent=False, fail_fast=False)


def test_brokers_are_checked_when_the_client_is_made() -> None:
    """A typo must not wait for the first call to time out."""
    with pytest.raises(ValueError, match="at least one broker"):
        ClientSetup([], UNSET, None, MSGPACK, None)
    with pytest.raises(ValueError, match="no port"):
        ClientSetup(["tcp://localhost"], UNSET, None, MSGPACK, None)


def test_each_engine_has_an_id_of_its_own() -> None:
    """A child after fork must not be taken for its parent."""
    drawn: list[int] = []

    def ids(size: int) -> bytes:
        drawn.append(size)
        return len(drawn).to_bytes(size, "big")

    setup = ClientSetup([_BROKER], UNSET, None, MSGPACK, None, ids)
    setup.engine()
    setup.engine()
    assert drawn.count(16) == len(drawn) == 4


def test_a_call_ends_with_its_body_or_its_error() -> None:
    """Errors travel as values as far as here."""
    assert unwrap(CallFinished(b"", [b"x"])) == [b"x"]
    with pytest.raises(RequestAbandoned, match="forked") as caught:
        unwrap(abandoned(b"c" * 16, "the process was forked"))
    assert (caught.value.outcome, caught.value.call_id) == (Outcome.UNKNOWN, b"c" * 16)
