"""How a call ends without a reply: which error, with which outcome, and the story it tells."""

from __future__ import annotations

import attrs

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
    ServiceNotFound,
    Spent,
    WorkerFailed,
)
from reliable.protocol.call_facts import Call, Past
from reliable.status import STATUS_TABLE, Status
from reliable.types import Frames
from reliable.wire.extension import AnswerFrame, Place
from reliable.wire.values import value

__all__ = [
    "Ended",
    "abandoned",
    "accepted",
    "at_deadline",
    "broker_lost",
    "by_status",
    "exhausted",
    "hedged",
    "no_broker",
    "queue_full",
    "replied",
    "too_large",
]

_PLACES = {
    Place.UNSAID: "nothing",
    Place.QUEUED: "queued at the broker",
    Place.QUEUED_NO_WORKER: "queued at the broker, where no worker offers the service",
    Place.DELIVERED: "handed to a worker",
    Place.RUNNING: "running",
    Place.STUCK: "with a worker whose process lives but whose loop is silent",
    Place.LIMBO: "with a worker that is out of sight",
    Place.ENDED: "ended",
}
_STATES = {
    Place.UNSAID: "sent",
    Place.QUEUED: "queued",
    Place.QUEUED_NO_WORKER: "queued, no worker",
    Place.DELIVERED: "delivered",
    Place.RUNNING: "running",
    Place.STUCK: "stuck",
    Place.LIMBO: "worker out of sight",
    Place.ENDED: "ended",
}
_ACCOUNTS = ("unsent_s", "queued_s", "running_s", "silent_s")
_REFUSALS: dict[Status | None, type[RequestError]] = {
    Status.OVERLOADED: QueueFull,
    Status.NO_SERVICE: ServiceNotFound,
}


@value
class Ended:
    """The call is over."""

    past: Past
    result: Frames | RequestError
    outcome: Outcome


def accepted(past: Past) -> Ended:
    """A one-way call, by the broker's word that it has it."""
    return Ended(past, [b""], Outcome.UNKNOWN)


def hedged(primary: Ended, other: Ended) -> Ended:
    """Both of two that ran beside each other failed: the first one's error, with an outcome that is true of both."""
    if primary.outcome is not Outcome.NOT_EXECUTED or other.outcome is Outcome.NOT_EXECUTED:
        return primary
    if isinstance(primary.result, RequestError):
        primary.result.outcome = other.outcome
    return attrs.evolve(primary, outcome=other.outcome)


def replied(past: Past, body: Frames) -> Ended:
    """With its reply."""
    return Ended(past, body, Outcome.EXECUTED)


def by_status(call: Call, past: Past, answer: AnswerFrame, body: Frames, now: float) -> Ended:
    """With what the broker said; its own outcome goes before the one of the table, and is joined over all attempts."""
    rule = STATUS_TABLE[answer.status]
    kind = rule.error or RequestError
    text = body[0].decode("utf-8", "replace")[:500] if body else ""
    message = f"{_name(call)}: {rule.meaning}" + (f": {text}" if text else "")
    if answer.status is Status.HANDLER_ERROR:
        return _handler_failed(call, past, answer, body, now)
    return _ended(call, past, kind, message, now, past.joined(answer.outcome))


def _handler_failed(call: Call, past: Past, answer: AnswerFrame, body: Frames, now: float) -> Ended:
    name, text = (frame.decode("utf-8", "replace") for frame in (*body, b"", b"")[:2])
    ended = _ended(call, past, WorkerFailed, f"{_name(call)}: {name}: {text}", now, past.joined(answer.outcome))
    if isinstance(ended.result, WorkerFailed):
        ended.result.remote_type, ended.result.remote_message = name, text
    return ended


def at_deadline(call: Call, past: Past, now: float, reach: str) -> Ended:
    """Time ran out: the class says what was the matter, as far as it is known.

    Args:
        reach: What became of the tries to reach a broker; empty if one is there.
    """
    elapsed_s = now - call.started
    if past.attempts == 0 and reach and elapsed_s > 0:
        message = f"{_name(call)}: no broker could be reached within {elapsed_s:.2f} s: {reach}"
        return _ended(call, past, BrokerUnreachable, message, now, past.outcome)
    no_worker = past.status is Status.NO_SERVICE or past.place is Place.QUEUED_NO_WORKER
    if no_worker and not past.may_have_run:
        return _ended(call, past, ServiceNotFound, f"{_name(call)}: no worker in {elapsed_s:.2f} s", now, past.outcome)
    message = f"{_name(call)}: no reply within {elapsed_s:.2f} s{_where_time_went(call, past, now)}"
    return _ended(call, past, DeadlineExceeded, message, now, past.outcome)


def exhausted(call: Call, past: Past, now: float, why: str) -> Ended:
    """The policy allows no further attempt."""
    kind: type[RequestError] = AttemptsExhausted
    if not past.may_have_run:
        kind = _REFUSALS.get(past.status, AttemptsExhausted)
    message = f"{_name(call)}: gave up after {past.failures} failed attempts: {why}"
    return _ended(call, past, kind, message, now, past.outcome)


def broker_lost(call: Call, past: Past, now: float, why: str) -> Ended:
    """The one broker that knows what became of it cannot be asked any more."""
    return _ended(call, past, BrokerLost, f"{_name(call)}: {why}", now, past.outcome)


def no_broker(call: Call, past: Past, now: float, reach: str) -> Ended:
    """No broker in the list can serve it."""
    kind: type[RequestError] = BrokerLost if past.may_have_run else BrokerUnreachable
    return _ended(call, past, kind, f"{_name(call)}: no broker can take the call: {reach}", now, past.outcome)


def too_large(call: Call, past: Past, now: float, limit: int, whose: str) -> Ended:
    """It does not fit through."""
    message = f"{_name(call)}: the request has about {call.size_bytes} bytes; {whose} allows {limit}"
    return _ended(call, past, MessageTooLarge, message, now, past.outcome)


def queue_full(call: Call, now: float, limit: int) -> Ended:
    """The client holds as many calls as it may."""
    message = f"{_name(call)}: {limit} calls are in flight already"
    return _ended(call, Past(), QueueFull, message, now, Outcome.NOT_EXECUTED)


def abandoned(call: Call, past: Past, now: float, why: str) -> Ended:
    """The caller gave up."""
    return _ended(call, past, RequestAbandoned, f"{_name(call)}: {why}", now, past.outcome)


def _name(call: Call) -> str:
    return call.service.decode("ascii", "backslashreplace")


def _where_time_went(call: Call, past: Past, now: float) -> str:
    if past.attempts == 0:
        return ", which was over before it could be sent"
    unsent_s, queued_s, running_s, silent_s = past.spent_until(now)
    times = "once" if past.attempts == 1 else f"{past.attempts} times"
    spent = [
        f"{seconds:.2f} s {what}"
        for seconds, what in (
            (unsent_s, "unsent"),
            (queued_s, "queued"),
            (running_s, "running"),
            (silent_s, "waiting for an answer"),
        )
        if seconds >= 0.005 or what == "waiting for an answer"
    ]
    return f": asked {times}, the last time at {past.address}; {', '.join(spent)}; last news: {_PLACES[past.place]}"


def _ended(call: Call, past: Past, kind: type[RequestError], message: str, now: float, outcome: Outcome) -> Ended:
    error = kind(
        message,
        outcome=outcome,
        service=_name(call),
        call_id=call.call_id,
        attempts=past.attempts,
        elapsed_s=now - call.started,
        retry_after_s=past.retry_after_s,
        brokers=past.brokers,
        last_state=_STATES[past.place] if past.attempts else "not sent",
        spent=Spent(**dict(zip(_ACCOUNTS, past.spent_until(now), strict=True))),
        story=tuple(_line(call, step) for step in past.story),
    )
    return Ended(past, error, outcome)


def _line(call: Call, step: tuple[float, str, str]) -> str:
    when, what, where = step
    return f"{when - call.started:8.3f} s  {what}" + (f" ({where})" if where else "")
