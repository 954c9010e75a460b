"""Observers: what they log, and that a bad one harms nobody."""

from __future__ import annotations

import logging

import pytest

from reliable import Client, Outcome, Worker
from reliable.engine.observe import (
    AttemptEnded,
    AttemptStarted,
    BreakerChanged,
    BrokerFound,
    CallEnded,
    CallStarted,
    FailedOver,
    HedgeStarted,
    LinkLost,
    MessageDropped,
    RetryRefused,
    RetryScheduled,
)
from reliable.observing import LoggingObserver, guarded, observers
from reliable.status import Status
from tests.support.loopback import QUICK_WORKER, RunningWorker
from tests.support.served import Executions, broker_at, worker_at

ID = bytes.fromhex("0123456789abcdef") * 2
URL = "tcp://127.0.0.1:5555"

LINES = [
    (CallStarted(ID, b"add"), "DEBUG", "call 01234567 of add: started"),
    (AttemptStarted(ID, 2, URL, False), "DEBUG", f"call 01234567: attempt 2 through {URL}"),
    (AttemptStarted(ID, 2, URL, True), "DEBUG", f"call 01234567: attempt 2 through {URL} (asks only)"),
    (
        AttemptEnded(ID, 1, URL, None, Outcome.UNKNOWN, "no answer"),
        "DEBUG",
        f"call 01234567: attempt 1 through {URL} ended: silence, UNKNOWN, no answer",
    ),
    (
        AttemptEnded(ID, 1, URL, Status.NO_SERVICE, Outcome.NOT_EXECUTED, "nobody"),
        "DEBUG",
        f"call 01234567: attempt 1 through {URL} ended: no-service, NOT_EXECUTED, nobody",
    ),
    (RetryScheduled(ID, 2, 0.25), "DEBUG", "call 01234567: attempt 2 follows in 0.250 s"),
    (RetryRefused(ID, "budget"), "INFO", "call 01234567: no further attempt: budget"),
    (HedgeStarted(ID, b"h" * 16, 0.05), "DEBUG", "call 01234567: hedged after 0.050 s"),
    (FailedOver(ID, "ipc://a", "ipc://b"), "INFO", "call 01234567: failed over from ipc://a to ipc://b"),
    (BreakerChanged(URL, "closed", "open"), "INFO", f"breaker of {URL}: closed -> open"),
    (BrokerFound(URL, b"\x01\x02", False), "DEBUG", f"broker {URL} answers, life 0102"),
    (BrokerFound(URL, b"\x01\x02", True), "INFO", f"broker {URL} has restarted, life 0102"),
    (LinkLost(URL, "refused"), "INFO", f"link to {URL} lost: refused"),
    (MessageDropped(URL, "no\nsense"), "WARNING", f"message from {URL} dropped: no sense"),
    (
        CallEnded(ID, b"add", Outcome.EXECUTED, "", 1, 0.0125),
        "DEBUG",
        "call 01234567 of add: ok, EXECUTED, 1 attempts, 0.013 s",
    ),
    (
        CallEnded(ID, b"add", Outcome.UNKNOWN, "BrokerLost", 2, 1.5),
        "DEBUG",
        "call 01234567 of add: BrokerLost, UNKNOWN, 2 attempts, 1.500 s",
    ),
    ("something new", "DEBUG", "'something new'"),
]


class Raises:
    """An observer as users write them."""

    def __init__(self, error: type[BaseException] = RuntimeError) -> None:
        self.calls = 0
        self._error = error

    def __call__(self, observation: object, /) -> None:
        self.calls += 1
        raise self._error("a mistake")


@pytest.mark.parametrize(("observation", "level", "line"), LINES)
def test_each_observation_is_one_line_at_its_level(
    observation: object, level: str, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator who runs at INFO wants to read of brokers, not of each attempt."""
    caplog.set_level(logging.DEBUG, "reliable")
    LoggingObserver()(observation)
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("reliable", level, line)
    ]


def test_levels_that_nobody_reads_cost_no_text(caplog: pytest.LogCaptureFixture) -> None:
    """The observer runs in the midst of each call."""

    class Unprintable:
        def __repr__(self) -> str:
            raise AssertionError("the text was made")

    caplog.set_level(logging.INFO, "reliable")
    LoggingObserver()(Unprintable())
    assert caplog.records == []


def test_a_logger_of_ones_own_is_used(caplog: pytest.LogCaptureFixture) -> None:
    """A program with two clients may want to tell them apart."""
    caplog.set_level(logging.DEBUG, "orders")
    LoggingObserver(logging.getLogger("orders"))(LinkLost(URL, "refused"))
    assert [record.name for record in caplog.records] == ["orders"]


def test_an_observer_that_raises_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A line for each of a million calls would do more harm than the mistake."""
    observer = Raises()
    safe = guarded(observer)
    assert safe is not None
    for _ in range(3):
        safe(LinkLost(URL, "refused"))
    assert observer.calls == 3
    assert [(record.name, record.levelname) for record in caplog.records] == [("reliable", "ERROR")]
    assert "Raises" in caplog.text and "LinkLost" in caplog.text and "a mistake" in caplog.text


def test_ctrl_c_in_an_observer_is_not_swallowed() -> None:
    """The user asked for the program to end; it only happened to be there."""
    safe = guarded(Raises(KeyboardInterrupt))
    assert safe is not None
    with pytest.raises(KeyboardInterrupt):
        safe(LinkLost(URL, "refused"))


def test_no_observer_stays_none() -> None:
    """Engines skip the making of observations if there is nobody to hear."""
    assert guarded(None) is None


def test_several_observers_are_told_in_order_whatever_one_of_them_does(caplog: pytest.LogCaptureFixture) -> None:
    """Metrics must not stop because the tracing is broken."""
    heard: list[str] = []
    bad = Raises()
    both = observers(lambda seen: heard.append("first"), bad, lambda seen: heard.append("last"))
    both(LinkLost(URL, "refused"))
    both(LinkLost(URL, "refused"))
    assert heard == ["first", "last"] * 2
    assert bad.calls == 2
    assert len(caplog.records) == 1


def test_observers_of_observers_are_told_too() -> None:
    """A library may combine its own with what its user hands in."""
    heard: list[object] = []
    observers(observers(heard.append), observers())("x")
    assert heard == ["x"]


@pytest.mark.usefixtures("no_leaks")
def test_calls_go_on_under_an_observer_that_raises(endpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error in the midst of the engine would end all calls of the client, those of other threads too."""
    bad = Raises()
    with broker_at(endpoint), worker_at(endpoint, Executions()), Client(endpoint, observer=bad) as client:
        assert [client.call("echo", word) for word in ("a", "b")] == ["a", "b"]
    assert bad.calls > 2
    assert len([record for record in caplog.records if record.name == "reliable"]) == 1


@pytest.mark.usefixtures("no_leaks")
def test_a_worker_serves_on_under_an_observer_that_raises(endpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error in its loop would end the worker, with all that its handlers have in hand."""
    bad = Raises()
    worker = Worker(endpoint, config=QUICK_WORKER, observer=bad)

    @worker.service("double")
    def double(number: int) -> int:
        return 2 * number

    with broker_at(endpoint):
        running = RunningWorker(worker, None)
        running.wait_ready()
        with Client(endpoint) as client:
            assert client.call("double", 4) == 8
        running.stop(0.0)
    assert bad.calls >= 1
    assert len([record for record in caplog.records if record.name == "reliable"]) == 1


@pytest.mark.usefixtures("no_leaks")
def test_a_real_call_is_logged(endpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    """The lines above are made by hand; these are what a user reads."""
    caplog.set_level(logging.DEBUG, "reliable")
    with broker_at(endpoint), worker_at(endpoint, Executions()), Client(endpoint, observer=LoggingObserver()) as client:
        client.call("echo", "a")
    lines = [record.getMessage() for record in caplog.records if record.name == "reliable"]
    assert [line for line in lines if line.startswith(f"broker {endpoint} answers, life ")]
    assert [line for line in lines if line.endswith(f": attempt 1 through {endpoint}")]
    assert [line for line in lines if " of echo: ok, EXECUTED, 1 attempts, " in line]
