"""Traces of calls for OpenTelemetry; needs the extra ``tracing``.

A ``TracingObserver`` opens one CLIENT span per call. ``handler_span`` and ``traced`` open a SERVER span around a
handler; it is the child of the caller's span if the client sends its trace context along:

    tracing = TracingObserver()
    client = Client("tcp://127.0.0.1:5555", observer=tracing, trace_source=tracing.trace_source)

Attributes follow the semantic conventions for RPC (``rpc.system``, ``rpc.service``, ``server.address``,
``error.type``); what those do not know begins with ``reliable.``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar, cast

import attrs

from reliable.engine.observe import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallStarted,
    FailedOver,
    HedgeStarted,
    RetryRefused,
    RetryScheduled,
)
from reliable.names import parse_address
from reliable.request import Request, current_request

try:
    from opentelemetry import context, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    from opentelemetry.util.types import AttributeValue
except ModuleNotFoundError as missing:
    raise ImportError(f"reliable.opentelemetry needs the extra: pip install 'reliable[tracing]' ({missing})") from None

__all__ = ["TracingObserver", "handler_context", "handler_span", "traced", "traceparent"]

_SYSTEM: Final = "reliable"
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TRACEPARENT: Final = "traceparent"
_SPANS_MAX: Final = 100_000

P = ParamSpec("P")
R = TypeVar("R")


def traceparent() -> bytes:
    """The W3C trace context of the current span, as calls carry it; empty if there is no span."""
    return _traceparent(context.get_current())


def _traceparent(of: Context) -> bytes:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, of)
    return carrier.get(_TRACEPARENT, "").encode("ascii")


def _tracer(tracer: Tracer | None) -> Tracer:
    return trace.get_tracer(_SYSTEM) if tracer is None else tracer


def _rpc(service: str) -> dict[str, AttributeValue]:
    return {"rpc.system": _SYSTEM, "rpc.service": service}


# --- callers --------------------------------------------------------------------------------------


@attrs.define(eq=False)
class _OpenCall:
    span: Span
    hedges: list[bytes] = attrs.field(factory=list)


_begun: ContextVar[tuple[TracingObserver, Span] | None] = ContextVar("reliable_begun_span", default=None)
"""The span that ``trace_source`` opened for the call that is being made here."""


class TracingObserver:
    """An observer for ``Client(..., observer=...)``: a CLIENT span for each call, its attempts as events.

    Any number of clients may share one. The span is a child of the span that is current where the call is made.

    Args:
        tracer: Opens the spans; not given, the one named ``reliable`` of the global provider.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = _tracer(tracer)
        # No lock, which a fork could leave taken in the child: each step on a dict is whole, and what is seen of one
        # call is seen under the lock of its one client.
        self._open: OrderedDict[bytes, _OpenCall] = OrderedDict()
        self._hedges: dict[bytes, bytes] = {}
        """Id of a hedge → id of its call."""

    def trace_source(self) -> bytes:
        """For ``Client(..., trace_source=...)``: open the span of the call that is about to be made.

        Returns:
            Its W3C trace context, so that the handler's span becomes its child; empty if nothing is recorded.
        """
        span = self._start()
        _begun.set((self, span))
        return _traceparent(trace.set_span_in_context(span))

    def __call__(self, observation: object, /) -> None:
        """Open, note or end; what belongs to no call is left alone."""
        match observation:
            case CallStarted():
                self._started(observation)
            case CallEnded():
                self._ended(observation)
            case AttemptStarted():
                self._attempt(observation)
            case AttemptEnded():
                self._attempt_ended(observation)
            case RetryScheduled(call_id, attempt, delay_s):
                self._event(call_id, "retry scheduled", {"reliable.attempt": attempt, "reliable.delay_s": delay_s})
            case RetryRefused(call_id, reason):
                self._event(call_id, "retry refused", {"reliable.reason": reason})
            case FailedOver(call_id, old, new):
                self._event(call_id, "failed over", {"reliable.broker.old": old, "reliable.broker": new})
            case HedgeStarted():
                self._hedged(observation)
            case _:
                pass

    def _start(self) -> Span:
        return self._tracer.start_span("call", kind=SpanKind.CLIENT)

    def _started(self, seen: CallStarted) -> None:
        begun = _begun.get()
        if begun is not None and begun[0] is self:
            span = begun[1]
            _begun.set(None)
        else:
            span = self._start()
        service = seen.service.decode("ascii", "backslashreplace")
        span.update_name(service)
        span.set_attributes({**_rpc(service), "reliable.call_id": seen.call_id.hex()})
        self._open[seen.call_id] = _OpenCall(span)
        # A client that was interrupted at work drops its calls unheard; their spans must not pile up.
        if len(self._open) > _SPANS_MAX:
            self._drop_hedges(self._open.popitem(last=False)[1])

    def _ended(self, seen: CallEnded) -> None:
        found = self._open.pop(seen.call_id, None)
        if found is None:
            return
        self._drop_hedges(found)
        span = found.span
        span.set_attributes({"reliable.outcome": seen.outcome.name, "reliable.attempts": seen.attempts})
        if seen.error:
            span.set_attribute("error.type", seen.error)
            span.set_status(Status(StatusCode.ERROR, f"{seen.error}, {seen.outcome.name}"))
        span.end()

    def _drop_hedges(self, call: _OpenCall) -> None:
        for hedge in call.hedges:
            self._hedges.pop(hedge, None)

    def _span(self, call_id: bytes) -> Span | None:
        found = self._open.get(self._hedges.get(call_id, call_id))
        return None if found is None else found.span

    def _event(self, call_id: bytes, name: str, about: Mapping[str, AttributeValue]) -> None:
        span = self._span(call_id)
        if span is not None:
            span.add_event(name, about)

    def _attempt(self, seen: AttemptStarted) -> None:
        span = self._span(seen.call_id)
        if span is None:
            return
        span.add_event(
            "attempt",
            {"reliable.attempt": seen.attempt, "reliable.broker": seen.broker, "reliable.attach": seen.attach},
        )
        address = parse_address(seen.broker)
        if address.port:
            span.set_attributes({"server.address": address.host, "server.port": address.port})

    def _attempt_ended(self, seen: AttemptEnded) -> None:
        about: dict[str, AttributeValue] = {
            "reliable.attempt": seen.attempt,
            "reliable.broker": seen.broker,
            "reliable.status": "silent" if seen.status is None else seen.status.name,
            "reliable.outcome": seen.outcome.name,
            "reliable.reason": seen.reason,
        }
        self._event(seen.call_id, "attempt ended", about)

    def _hedged(self, seen: HedgeStarted) -> None:
        found = self._open.get(seen.call_id)
        if found is None:
            return
        found.hedges.append(seen.hedge_id)
        self._hedges[seen.hedge_id] = seen.call_id
        found.span.add_event("hedged", {"reliable.delay_s": seen.delay_s})


# --- handlers -------------------------------------------------------------------------------------


def handler_context(request: Request | None = None) -> Context:
    """The OpenTelemetry context that the caller of a request sent along, to open spans of one's own in.

    Args:
        request: Not given, ``current_request()``.

    Returns:
        A context with the caller's span as parent; the current context if the caller sent none that can be read.

    Raises:
        LookupError: No request given, and not called from a handler.
    """
    request = current_request() if request is None else request
    # The bytes come from a peer: what is no trace context is as good as none.
    carrier = {_TRACEPARENT: request.trace.decode("ascii", "replace")}
    return _PROPAGATOR.extract(carrier, context.get_current())


@contextlib.contextmanager
def handler_span(request: Request | None = None, tracer: Tracer | None = None) -> Iterator[Span]:
    """A SERVER span around what a handler does, current meanwhile; an exception is recorded in it and passes through.

    Args:
        request: Not given, ``current_request()``.
        tracer: Opens the span; not given, the one named ``reliable`` of the global provider.

    Raises:
        LookupError: No request given, and not called from a handler.
    """
    request = current_request() if request is None else request
    attributes = {
        **_rpc(request.service),
        "reliable.call_id": request.call_id.hex(),
        "reliable.attempt": request.attempt,
        "reliable.delivery": request.delivery,
    }
    with _tracer(tracer).start_as_current_span(
        request.service, handler_context(request), kind=SpanKind.SERVER, attributes=attributes
    ) as span:
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            raise


def traced(function: Callable[P, R]) -> Callable[P, R]:
    """A handler inside of ``handler_span``: put it between ``@worker.service(...)`` and the function or coroutine.

    Args:
        function: The handler, plain or ``async``; for a generator use ``handler_span`` inside of it.

    Raises:
        TypeError: It is a generator.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__name__} is a generator: use 'with handler_span():' inside of it")
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def in_span_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            with handler_span():
                return await function(*args, **kwargs)

        return cast("Callable[P, R]", in_span_async)

    @functools.wraps(function)
    def in_span(*args: P.args, **kwargs: P.kwargs) -> R:
        with handler_span():
            return function(*args, **kwargs)

    return in_span
