"""What is checked and filled in before a call reaches an engine."""

from __future__ import annotations

import math

import pytest

from reliable.calling import UNSET, CallOptions, ClientSetup, Timeout, abandoned, unwrap
from reliable.config import ClientConfig, HedgePolicy
from reliable.errors import Outcome, RequestAbandoned
from reliable.payload import JSON, MSGPACK, RAW
from reliable.protocol.events import CallFinished, StartJob
from reliable.request import Request, request_context

_HEDGE = HedgePolicy(delay_s=1.0)
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
    view = CallOptions(
        timeout=1.0, idempotent=True, fail_fast=True, hedge=_HEDGE, codec=RAW, on_progress=print, trace=b"t"
    )
    assert view.changed() == view
    changed = view.changed(
        timeout=None, idempotent=False, fail_fast=False, hedge=None, codec=JSON, on_progress=repr, trace=b""
    )
    assert changed == CallOptions(
        timeout=None, idempotent=False, fail_fast=False, hedge=None, codec=JSON, on_progress=repr, trace=b""
    )


def test_hedging_is_for_calls_that_say_that_they_may_run_twice() -> None:
    """The setting of a client leaves all others alone; asking for it is refused."""
    setup = _setup(config=ClientConfig(hedge=_HEDGE))
    plain, safe = CallOptions(), CallOptions(idempotent=True)
    assert setup.submit("s", [], plain, 0.0).hedge is None
    submit = setup.submit("s", [], safe, 0.0)
    assert (submit.hedge, len(submit.hedge_id)) == (_HEDGE, 16)
    for without in (
        setup.submit("s", [], safe.changed(hedge=None), 0.0),
        setup.submit("s", [], safe, 0.0, hedged=False),
        setup.submit("s", [], safe, 0.0, one_way=True),
    ):
        assert (without.hedge, without.hedge_id) == (None, b"")
    with pytest.raises(ValueError, match="idempotent=True"):
        _setup().submit("s", [], CallOptions(hedge=_HEDGE), 0.0)


def test_the_nearest_trace_context_counts(caplog: pytest.LogCaptureFixture) -> None:
    """Of the call, else of the source, else of the request that is being handled; a source that fails is none."""
    request = Request(StartJob(job=1, service=b"s", body=[b""], deadline=None, trace=b"inherited"), lambda _: None)
    token = request_context.set(request)
    try:
        for source, given, sent in (
            (None, None, b"inherited"),
            (lambda: b"source", None, b"source"),
            (lambda: b"", None, b"inherited"),
            (lambda: b"source", b"given", b"given"),
            (lambda: b"source", b"", b""),
            (lambda: bytes(256), None, b"inherited"),
        ):
            setup = ClientSetup([_BROKER], UNSET, None, MSGPACK, None, trace_source=source)
            assert setup.submit("s", [], CallOptions(trace=given), 0.0).trace == sent
    finally:
        request_context.reset(token)
    assert caplog.text.count("trace_source failed") == 1
    assert _setup().submit("s", [], CallOptions(), 0.0).trace == b""


def test_progress_is_asked_for_only_if_somebody_listens() -> None:
    """The broker sends it on only then."""
    assert not _setup().submit("s", [], CallOptions(), 0.0).wants_progress
    assert _setup().submit("s", [], CallOptions(on_progress=print), 0.0).wants_progress
    assert not _setup().submit("s", [], CallOptions(on_progress=print), 0.0, one_way=True).wants_progress


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
