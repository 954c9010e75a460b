"""Spans of calls and of handlers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer

import reliable.opentelemetry
from reliable import AsyncClient, Client, Outcome, Request, Worker, WorkerFailed
from reliable.engine.observe import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallStarted,
    FailedOver,
    HedgeStarted,
    LinkLost,
    RetryRefused,
    RetryScheduled,
)
from reliable.opentelemetry import TracingObserver, handler_context, handler_span, traced, traceparent
from reliable.protocol.events import StartJob
from reliable.request import request_context
from reliable.status import Status
from tests.support.loopback import QUICK_WORKER, RunningWorker
from tests.support.served import broker_at

ID, HEDGE = b"i" * 16, b"h" * 16
A, B = "tcp://127.0.0.1:5555", "ipc:///run/b"


class Recorder:
    """A tracer, and the spans that ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider()
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = self._provider.get_tracer("tests")

    @property
    def spans(self) -> list[ReadableSpan]:
        """In the order in which they ended."""
        return list(self._exporter.get_finished_spans())

    def only(self, kind: SpanKind) -> ReadableSpan:
        """The one span of a kind."""
        (span,) = [span for span in self.spans if span.kind is kind]
        return span

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A recorder of this test alone."""
    made = Recorder()
    yield made
    made.close()


def _events(span: ReadableSpan) -> list[tuple[str, dict[str, object]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


def _parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def _id(span: ReadableSpan) -> int:
    found = span.get_span_context()
    assert found is not None
    return found.span_id


def _ended(error: str = "", outcome: Outcome = Outcome.EXECUTED, attempts: int = 1) -> CallEnded:
    return CallEnded(ID, b"add", outcome, error, attempts, 0.02)


def _request(trace_context: bytes = b"") -> Request:
    job = StartJob(
        job=1,
        service=b"add",
        body=[b""],
        deadline=None,
        call_id=ID,
        attempt=2,
        delivery=1,
        trace=trace_context,
    )
    return Request(job, lambda frames: None)


@contextmanager
def _handling(request: Request) -> Iterator[None]:
    token = request_context.set(request)
    try:
        yield
    finally:
        request_context.reset(token)


def test_a_call_is_one_client_span(recorder: Recorder) -> None:
    """What backends group by: kind, name, and the attributes of the semantic conventions."""
    observer = TracingObserver(recorder.tracer)
    observer(CallStarted(ID, b"add"))
    observer(AttemptStarted(ID, 1, A, False))
    observer(_ended())
    span = recorder.only(SpanKind.CLIENT)
    assert (span.name, span.status.status_code) == ("add", StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "rpc.system": "reliable",
        "rpc.service": "add",
        "server.address": "127.0.0.1",
        "server.port": 5555,
        "reliable.call_id": ID.hex(),
        "reliable.outcome": "EXECUTED",
        "reliable.attempts": 1,
    }


def test_a_broker_without_host_and_port_has_none_in_the_span(recorder: Recorder) -> None:
    """An empty address would be shown as one."""
    observer = TracingObserver(recorder.tracer)
    observer(CallStarted(ID, b"add"))
    observer(AttemptStarted(ID, 1, B, False))
    observer(_ended())
    assert not [key for key in recorder.only(SpanKind.CLIENT).attributes or {} if key.startswith("server.")]


def test_what_happened_to_a_call_are_events_of_its_span(recorder: Recorder) -> None:
    """A slow call is explained by its attempts, not by its length."""
    observer = TracingObserver(recorder.tracer)
    for observation in (
        CallStarted(ID, b"add"),
        AttemptStarted(ID, 1, A, False),
        AttemptEnded(ID, 1, A, None, Outcome.UNKNOWN, "no answer"),
        AttemptEnded(ID, 1, A, Status.OVERLOADED, Outcome.NOT_EXECUTED, "full"),
        RetryScheduled(ID, 2, 0.25),
        FailedOver(ID, A, B),
        AttemptStarted(ID, 2, B, True),
        RetryRefused(ID, "budget"),
        LinkLost(A, "of no call"),
        _ended("BrokerLost", Outcome.UNKNOWN, 2),
    ):
        observer(observation)
    assert _events(recorder.only(SpanKind.CLIENT)) == [
        ("attempt", {"reliable.attempt": 1, "reliable.broker": A, "reliable.attach": False}),
        (
            "attempt ended",
            {
                "reliable.attempt": 1,
                "reliable.broker": A,
                "reliable.status": "silent",
                "reliable.outcome": "UNKNOWN",
                "reliable.reason": "no answer",
            },
        ),
        (
            "attempt ended",
            {
                "reliable.attempt": 1,
                "reliable.broker": A,
                "reliable.status": "OVERLOADED",
                "reliable.outcome": "NOT_EXECUTED",
                "reliable.reason": "full",
            },
        ),
        ("retry scheduled", {"reliable.attempt": 2, "reliable.delay_s": 0.25}),
        ("failed over", {"reliable.broker.old": A, "reliable.broker": B}),
        ("attempt", {"reliable.attempt": 2, "reliable.broker": B, "reliable.attach": True}),
        ("retry refused", {"reliable.reason": "budget"}),
    ]


def test_a_failed_call_is_an_error_span(recorder: Recorder) -> None:
    """Error rates of backends count the status; the outcome says whether somebody must look."""
    observer = TracingObserver(recorder.tracer)
    observer(CallStarted(ID, b"add"))
    observer(_ended("DeadlineExceeded", Outcome.UNKNOWN))
    span = recorder.only(SpanKind.CLIENT)
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "DeadlineExceeded, UNKNOWN"
    assert (span.attributes or {})["error.type"] == "DeadlineExceeded"


def test_attempts_of_a_hedge_belong_to_the_span_of_its_call(recorder: Recorder) -> None:
    """To the broker a hedge is a call of its own; to the user it is the same call."""
    observer = TracingObserver(recorder.tracer)
    observer(CallStarted(ID, b"add"))
    observer(HedgeStarted(ID, HEDGE, 0.05))
    observer(AttemptStarted(HEDGE, 1, A, False))
    observer(_ended())
    assert [name for name, _ in _events(recorder.only(SpanKind.CLIENT))] == ["hedged", "attempt"]
    assert observer._hedges == {}


def test_observations_of_unknown_calls_are_left_alone(recorder: Recorder) -> None:
    """A client that was made before its observer has calls that it never heard of."""
    observer = TracingObserver(recorder.tracer)
    for observation in (AttemptStarted(ID, 1, A, False), HedgeStarted(ID, HEDGE, 0.1), _ended(), "something new"):
        observer(observation)
    assert recorder.spans == []


def test_spans_of_calls_that_never_end_do_not_pile_up(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted client drops its calls without a word."""
    monkeypatch.setattr(reliable.opentelemetry, "_SPANS_MAX", 2)
    observer = TracingObserver(recorder.tracer)
    ids = [bytes([number]) * 16 for number in range(3)]
    for call_id in ids:
        observer(CallStarted(call_id, b"add"))
        observer(HedgeStarted(call_id, call_id[::-1] + b"h", 0.1))
    for call_id in ids:
        observer(CallEnded(call_id, b"add", Outcome.EXECUTED, "", 1, 0.1))
    assert [(span.attributes or {})["reliable.call_id"] for span in recorder.spans] == [ids[1].hex(), ids[2].hex()]


def test_the_span_is_a_child_of_the_current_one(recorder: Recorder) -> None:
    """Otherwise calls stand beside the request that made them."""
    observer = TracingObserver(recorder.tracer)
    with recorder.tracer.start_as_current_span("outer"):
        observer(CallStarted(ID, b"add"))
    observer(_ended())
    outer = recorder.only(SpanKind.INTERNAL)
    assert _parent(recorder.only(SpanKind.CLIENT)) == _id(outer)


def test_trace_source_gives_the_span_of_the_call_itself(recorder: Recorder) -> None:
    """The handler's span hangs below the call, not beside it."""
    observer = TracingObserver(recorder.tracer)
    sent = observer.trace_source()
    observer(CallStarted(ID, b"add"))
    observer(_ended())
    span = recorder.only(SpanKind.CLIENT)
    assert sent.decode().split("-")[2] == f"{_id(span):016x}"
    assert span.name == "add"


def test_the_span_that_was_opened_is_not_taken_by_another_client(recorder: Recorder) -> None:
    """Two clients in one task: the context that the first sends must be that of its own call."""
    observer, other = TracingObserver(recorder.tracer), TracingObserver(recorder.tracer)
    sent = observer.trace_source()
    other(CallStarted(HEDGE, b"mul"))
    observer(CallStarted(ID, b"add"))
    observer(_ended())
    assert sent.decode().split("-")[2] == f"{_id(recorder.only(SpanKind.CLIENT)):016x}"


def test_each_call_gets_a_span_of_its_own(recorder: Recorder) -> None:
    """What was opened for a call that was refused, or for the one before, belongs to nobody else."""
    observer = TracingObserver(recorder.tracer)
    observer.trace_source()
    second = observer.trace_source()
    observer(CallStarted(ID, b"add"))
    observer(CallStarted(HEDGE, b"add"))
    observer(_ended())
    observer(CallEnded(HEDGE, b"add", Outcome.EXECUTED, "", 1, 0.1))
    first_span, last_span = recorder.spans
    assert second.decode().split("-")[2] == f"{_id(first_span):016x}"
    assert _id(last_span) != _id(first_span)


def test_without_tracing_nothing_is_sent() -> None:
    """The API without an SDK does nothing, and so do we."""
    tracer = trace.NoOpTracer()
    observer = TracingObserver(tracer)
    assert observer.trace_source() == b""
    for observation in (CallStarted(ID, b"add"), AttemptStarted(ID, 1, A, False), _ended("X")):
        observer(observation)
    assert traceparent() == b""


def test_traceparent_is_that_of_the_current_span(recorder: Recorder) -> None:
    """For whoever sends it some other way."""
    with recorder.tracer.start_as_current_span("outer") as span:
        found = span.get_span_context()
        assert traceparent() == f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}".encode()


def test_handler_span_is_a_child_of_what_the_caller_sent(recorder: Recorder) -> None:
    """One trace over two processes."""
    with recorder.tracer.start_as_current_span("caller") as caller:
        sent = traceparent()
    with _handling(_request(sent)), handler_span(tracer=recorder.tracer) as span:
        assert trace.get_current_span() is span
    server = recorder.only(SpanKind.SERVER)
    assert _parent(server) == caller.get_span_context().span_id
    assert server.parent is not None and server.parent.is_remote
    assert (server.name, dict(server.attributes or {})) == (
        "add",
        {
            "rpc.system": "reliable",
            "rpc.service": "add",
            "reliable.call_id": ID.hex(),
            "reliable.attempt": 2,
            "reliable.delivery": 1,
        },
    )


@pytest.mark.parametrize(
    "sent",
    [b"", b"nonsense", b"\xff" * 55, b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"],
    ids=["empty", "nonsense", "not ASCII", "all zeros"],
)
def test_what_is_no_trace_context_is_ignored(sent: bytes, recorder: Recorder) -> None:
    """The bytes come from a peer; a handler must not fail because of them."""
    with handler_span(_request(sent), recorder.tracer):
        pass
    assert recorder.only(SpanKind.SERVER).parent is None
    assert trace.get_current_span(handler_context(_request(sent))).get_span_context().is_valid is False


def test_failed_handler_is_an_error_span(recorder: Recorder) -> None:
    """The caller sees its name and text only; the span has where it came from."""
    with pytest.raises(ZeroDivisionError), handler_span(_request(), recorder.tracer):
        _ = 1 / 0
    span = recorder.only(SpanKind.SERVER)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "ZeroDivisionError"
    assert [name for name, _ in _events(span)] == ["exception"]


def test_handler_span_outside_of_a_handler_is_refused() -> None:
    """A span without a request would belong to nobody."""
    with pytest.raises(LookupError), handler_span():
        pass
    with pytest.raises(LookupError):
        handler_context()


def test_traced_keeps_what_workers_look_at() -> None:
    """Arguments are checked against the signature, and coroutines are run differently."""

    def plain(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    async def coroutine(a: int) -> int:
        return a

    assert inspect.signature(traced(plain)) == inspect.signature(plain)
    assert (traced(plain).__name__, traced(plain).__doc__) == ("plain", "Adds.")
    assert inspect.iscoroutinefunction(traced(coroutine))
    with _handling(_request()):
        assert traced(plain)(1) == 3
        assert asyncio.run(traced(coroutine)(4)) == 4


def test_traced_refuses_generators() -> None:
    """A span that ends before the first part is made would say nothing, quietly."""

    def parts() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="handler_span"):
        traced(parts)


@contextmanager
def _traced_worker(endpoint: str, recorder: Recorder) -> Iterator[None]:
    worker = Worker(endpoint, config=QUICK_WORKER)

    @worker.service("halve")
    def halve(number: int) -> float:
        with handler_span(tracer=recorder.tracer):
            if number == 0:
                raise ValueError("nothing to halve")
            return number / 2

    running = RunningWorker(worker, None)
    running.wait_ready()
    try:
        yield
    finally:
        running.stop(0.0)


@pytest.mark.usefixtures("no_leaks")
def test_a_real_call_and_its_handler_are_one_trace(endpoint: str, recorder: Recorder) -> None:
    """Client, broker and worker carry the context, or it is not there where it is needed."""
    tracing = TracingObserver(recorder.tracer)
    with (
        broker_at(endpoint),
        _traced_worker(endpoint, recorder),
        Client(endpoint, observer=tracing, trace_source=tracing.trace_source) as client,
    ):
        with recorder.tracer.start_as_current_span("outer") as outer:
            assert client.call("halve", 3) == 1.5
        call, handler = recorder.only(SpanKind.CLIENT), recorder.only(SpanKind.SERVER)
        assert _parent(call) == outer.get_span_context().span_id
        assert _parent(handler) == _id(call)
        assert _events(call) == [
            ("attempt", {"reliable.attempt": 1, "reliable.broker": endpoint, "reliable.attach": False})
        ]
        with pytest.raises(WorkerFailed):
            client.call("halve", 0)
        assert (recorder.spans[-1].attributes or {})["error.type"] == "WorkerFailed"


@pytest.mark.usefixtures("no_leaks")
async def test_calls_of_the_asyncio_client_side_by_side_have_their_own_traces(
    endpoint: str, recorder: Recorder
) -> None:
    """Tasks share a thread; what is kept per thread would be mixed up."""
    tracing = TracingObserver(recorder.tracer)

    async def one(client: AsyncClient, number: int) -> None:
        with recorder.tracer.start_as_current_span(f"outer {number}"):
            assert await client.call("halve", number) == number / 2

    with broker_at(endpoint), _traced_worker(endpoint, recorder):
        async with AsyncClient(endpoint, observer=tracing, trace_source=tracing.trace_source) as client:
            await asyncio.gather(*(one(client, number) for number in range(1, 6)))
    by_id = {_id(span): span for span in recorder.spans}
    handlers = [span for span in recorder.spans if span.kind is SpanKind.SERVER]
    roots = set()
    for handler in handlers:
        call = by_id[_parent(handler) or 0]
        assert call.kind is SpanKind.CLIENT
        roots.add(by_id[_parent(call) or 0].name)
    assert roots == {f"outer {number}" for number in range(1, 6)}
