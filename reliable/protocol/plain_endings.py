"""How a call to a plain server ends without a reply: which error, with which outcome, and the story it tells."""

from __future__ import annotations

from reliable.errors import (
    AttemptsExhausted,
    BrokerLost,
    BrokerUnreachable,
    DeadlineExceeded,
    MessageTooLarge,
    Outcome,
    QueueFull,
    RequestAbandoned,
    RequestError,
    Spent,
)
from reliable.protocol.plain_call import PlainCall, Stage, Step

__all__ = ["abandoned", "at_deadline", "exhausted", "queue_full", "server_lost", "too_large"]


def at_deadline(call: PlainCall, now: float, reach: str) -> RequestError:
    """Time ran out.

    Args:
        reach: What became of the tries to reach a server.
    """
    elapsed_s = now - call.started
    if call.may_have_run:
        times = "once" if call.attempts == 1 else f"{call.attempts} times"
        message = f"no reply within {elapsed_s:.2f} s: asked {times}, the last time at {call.address}"
        return _error(call, DeadlineExceeded, message, now)
    if elapsed_s > 0:
        return _error(call, BrokerUnreachable, f"no server could be reached within {elapsed_s:.2f} s: {reach}", now)
    return _error(call, DeadlineExceeded, "its time was over before it could be sent", now)


def exhausted(call: PlainCall, now: float, why: str) -> RequestError:
    """The policy allows no further attempt."""
    times = "one attempt" if call.failures == 1 else f"{call.failures} attempts"
    return _error(call, AttemptsExhausted, f"gave up after {times} failed: {why}", now)


def server_lost(call: PlainCall, now: float, why: str) -> RequestError:
    """The link broke under a request that must not be sent again."""
    return _error(call, BrokerLost, f"the link to {call.address} was lost: {why}", now)


def too_large(call: PlainCall, now: float, size: int, limit: int) -> RequestError:
    """It does not fit through."""
    return _error(call, MessageTooLarge, f"the request has {size} bytes; this client allows {limit}", now)


def queue_full(call: PlainCall, now: float, limit: int) -> RequestError:
    """The client holds as many calls as it may."""
    return _error(call, QueueFull, f"{limit} calls are in flight already", now)


def abandoned(call: PlainCall, now: float, why: str) -> RequestError:
    """The caller gave up."""
    return _error(call, RequestAbandoned, why, now)


def _error(call: PlainCall, kind: type[RequestError], message: str, now: float) -> RequestError:
    name = call.service.decode("ascii", "backslashreplace")
    elapsed_s = now - call.started
    unsent_s = call.unsent_s + (0.0 if call.stage is Stage.ASKED else now - call.since)
    return kind(
        f"{name}: {message}",
        outcome=Outcome.UNKNOWN if call.may_have_run else Outcome.NOT_EXECUTED,
        service=name,
        call_id=call.call_id,
        attempts=call.attempts,
        elapsed_s=elapsed_s,
        story=tuple(_line(call, step) for step in call.story),
        brokers=tuple(call.servers),
        last_state="running" if call.partial else "sent" if call.may_have_run else "not sent",
        spent=Spent(unsent_s=unsent_s, silent_s=elapsed_s - unsent_s),
    )


def _line(call: PlainCall, step: Step) -> str:
    when, what, where = step
    return f"{when - call.started:8.3f} s  {what}" + (f" ({where})" if where else "")
