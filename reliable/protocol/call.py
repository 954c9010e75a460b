"""The machine of one call: what may be sent next, and when it is over.

    Waiting ──Grant──▶ Asked ──reply, final error, deadline, cancel──▶ Ended
       ▲                 │
       └──refused, lost, not sent──┘

The rules ("who may repeat what", client rows):

1. A call is sent again anywhere if every copy of it is proven to have run nowhere.
2. If a copy may have run and the call is *safe* (declared idempotent), it is sent again anywhere; the flag REPEAT tells
   a broker that cannot know it that the work may have run elsewhere.
3. If a copy may have run and the call is not safe, only the same life of the same broker is asked, with ATTACH, which
   never dispatches. Another life ends the call with outcome UNKNOWN, since that broker's records are gone; but if the
   caller did not say whether the call is safe, the other life, or another broker once this one cannot be reached, gets
   a REPEAT without the word "idempotent", and runs it only if the *service* declares that. A broker's answer that says
   so makes such a call safe.
4. After a part of the reply was given to the caller nothing is sent again that could run it.
5. An OK or a handler's error ends the call whichever attempt it answers. Any other final status ends the attempt that
   it answers, and the call only if it comes from the life that was asked last.
6. Asking again on the same link is free of risk and nearly of cost, so silence is first answered with one ATTACH. Only
   if that stays silent too, and nothing else was heard on the link either, is the link suspect.

What is sent on which link is decided by the engine, which says so with ``Grant``; whether, when and as what is decided
here. Everything is pure: time and jitter are arguments, a step gives a new state and orders.

A retry that follows a failure is *extra* load; ``Waiting.extra`` says so, and the engine asks the client's retry budget
before it grants a link. ``Denied`` ends a call that the budget does not allow another attempt. Circuit breakers are
further reasons not to grant, and a hedge is a second call, so neither has states here.
"""

from __future__ import annotations

import math
from typing import TypeAlias, assert_never

import attrs

from reliable.config import ClientConfig, RetryCause
from reliable.errors import LocalProtocolError, Outcome
from reliable.protocol import call_endings as endings
from reliable.protocol.call_endings import Ended
from reliable.protocol.call_events import (
    Answered,
    Asked,
    CallEvent,
    CallState,
    Deliver,
    Denied,
    GiveUp,
    Grant,
    Lost,
    Missed,
    NoBroker,
    NotSent,
    Only,
    Order,
    Suspect,
    Tick,
    Transmit,
    Waiting,
)
from reliable.protocol.call_facts import ATTEMPT_MAX, Call, Past, Phase
from reliable.status import STATUS_TABLE, Retry, Status
from reliable.wire.extension import CallKind, Place

__all__ = ["first_copy", "may_submit", "step"]

_DELAY_S_MIN = 0.01
"""Full jitter may come out as nothing; a wait of nothing would let a fast refusal and its retry spin."""

_Step: TypeAlias = tuple[CallState, tuple[Order, ...]]

# --- the machine ----------------------------------------------------------------------------------


def step(call: Call, state: CallState, event: CallEvent, config: ClientConfig, now: float, u: float = 0.0) -> _Step:
    """The next state of a call and what to do.

    Args:
        u: Jitter in [0, 1) for the wait that this event may start.

    Raises:
        LocalProtocolError: A grant for a call that waits for none, or one that would break rule 3.
    """
    match state:
        case Waiting():
            return _waiting(call, state, event, config, now, u)
        case Asked():
            return _asked(call, state, event, config, now, u)
        case Ended():
            if isinstance(event, Grant):
                raise LocalProtocolError("a call that is over was granted a link")
            return state, ()
        case _:
            assert_never(state)


def first_copy(call: Call, grant: Grant, config: ClientConfig, now: float) -> Asked | None:
    """What ``step`` makes of ``grant`` for a call made at this very moment, in one go; None: ask ``step``.

    Nearly every call begins like this, and most of them are answered by the next message. The one order that goes with
    it is ``Transmit`` of a SUBMIT, attempt 1, no repeat.
    """
    if grant.bytes_max and call.size_bytes > grant.bytes_max:
        return None
    past = Past.of_first_copy(grant.life, grant.address, now)
    return Asked(past, grant.link, grant.address, grant.life, CallKind.SUBMIT, now, now + _patience_s(config))


def may_submit(call: Call, past: Past) -> bool:
    """Whether another copy may be sent (rules 1, 2 and 4)."""
    return not past.may_have_run or (_safe(call, past) and not past.partial)


def _safe(call: Call, past: Past) -> bool:
    """By the word of the caller, or of the service if the caller left it to that."""
    return call.safe or (call.unsaid and past.vouched)


def _service_decides(call: Call, past: Past) -> bool:
    """Whether a copy may go to a broker that knows nothing of the call, and the service says if it runs (rule 3)."""
    return call.unsaid and not past.partial


def _waiting(call: Call, state: Waiting, event: CallEvent, config: ClientConfig, now: float, u: float) -> _Step:
    match event:
        case Grant():
            return _grant(call, state, event, config, now)
        case Answered():
            return _answered_while_waiting(call, state, event, now)
        case NotSent():
            return _freed(call, attrs.evolve(state, past=state.past.never_left(event.attempt))), ()
        case Missed():
            return _missed(call, state, event, config, now, u), ()
        case NoBroker():
            return (state if state.only else endings.no_broker(call, state.past, now, event.reach)), ()
        case Denied():
            return endings.exhausted(call, state.past, now, event.why), ()
        case Tick():
            over = call.deadline is not None and now >= call.deadline
            return (endings.at_deadline(call, state.past, now, event.reach) if over else state), ()
        case GiveUp():
            return endings.abandoned(call, state.past, now, event.why), ()
        case Lost():
            return state, ()
        case _:
            assert_never(event)


def _asked(call: Call, state: Asked, event: CallEvent, config: ClientConfig, now: float, u: float) -> _Step:
    match event:
        case Grant():
            raise LocalProtocolError("a call with an attempt outstanding was granted a link")
        case Answered():
            return _answered(call, state, event, config, now, u)
        case NotSent():
            return _not_sent(call, state, event, config, now, u), ()
        case Lost():
            return (_lost(call, state, event, config, now, u) if event.link == state.link else state), ()
        case Tick():
            return _time_passed(call, state, event, config, now)
        case GiveUp():
            cancel = Transmit(state.link, CallKind.CANCEL, state.past.attempts)
            return endings.abandoned(call, state.past, now, event.why), (cancel,)
        case Missed() | NoBroker() | Denied():
            return state, ()
        case _:
            assert_never(event)


# --- sending --------------------------------------------------------------------------------------


def _grant(call: Call, state: Waiting, grant: Grant, config: ClientConfig, now: float) -> _Step:
    past = state.past
    if state.only is not None:
        if grant.life == state.only.life:
            return _ask(call, past, grant.link, grant.address, grant.life, config, now, probe=False)
        if not _service_decides(call, past):
            why = f"{grant.address} was restarted, and with it went what was known of the call"
            return endings.broker_lost(call, past, now, why), ()
    elif not may_submit(call, past):
        if not _service_decides(call, past):
            raise LocalProtocolError("a second copy of a call that is not idempotent")
        if past.known_to(grant.life):
            return _ask(call, past, grant.link, grant.address, grant.life, config, now, probe=False)
    if grant.bytes_max and call.size_bytes > grant.bytes_max:
        return endings.too_large(call, past, now, grant.bytes_max, f"the broker at {grant.address}"), ()
    if past.attempts >= ATTEMPT_MAX:
        return endings.exhausted(call, past, now, "no attempt numbers are left"), ()
    attempt = past.attempts + 1
    repeat = past.repeats(grant.life)
    asked = Asked(
        past.sent(CallKind.SUBMIT, attempt, grant.life, grant.address, now),
        grant.link,
        grant.address,
        grant.life,
        CallKind.SUBMIT,
        now,
        now + _patience_s(config),
        avoid=state.avoid,
    )
    return asked, (Transmit(grant.link, CallKind.SUBMIT, attempt, repeat),)


def _ask(
    call: Call, past: Past, link: int, address: str, life: bytes, config: ClientConfig, now: float, *, probe: bool
) -> _Step:
    """Ask the same life what became of the call; ``mmi.`` is asked afresh, since no record is kept of it."""
    kind = CallKind.SUBMIT if call.reserved else CallKind.ATTACH
    attempt = min(past.attempts + 1, ATTEMPT_MAX)
    patience_s = min(config.hello_timeout_s, _patience_s(config)) if probe else _patience_s(config)
    past = past.sent(kind, attempt, life, address, now)
    asked = Asked(past, link, address, life, kind, now, now + patience_s, probe=probe)
    return asked, (Transmit(link, kind, attempt),)


def _patience_s(config: ClientConfig) -> float:
    """A policy of one attempt lets it stay silent until the deadline: there is nothing else to do."""
    return math.inf if config.retry.attempts == 1 else config.retry.attempt_timeout_s


def _time_passed(call: Call, state: Asked, event: Tick, config: ClientConfig, now: float) -> _Step:
    past = state.past
    if call.deadline is not None and now >= call.deadline:
        return endings.at_deadline(call, past, now, event.reach), ()
    if now < state.silent_at:
        return state, ()
    if state.heard or not state.probe:
        return _ask(call, past, state.link, state.address, state.life, config, now, probe=True)
    if event.link_heard <= state.asked_at:
        # Not a failure yet: the loss of the link that follows is counted, once, for each call on it.
        return state, (Suspect(state.link, f"nothing was heard for {now - state.asked_at:.2f} s after asking again"),)
    past = attrs.evolve(past, failures=past.failures + 1)
    if _used_up(past.failures, config):
        return endings.exhausted(call, past, now, f"{state.address} answers others, but not this call"), ()
    # Asking costs next to nothing, so neither causes nor budget are looked at.
    return _ask(call, past, state.link, state.address, state.life, config, now, probe=True)


def _not_sent(call: Call, state: Asked, event: NotSent, config: ClientConfig, now: float, u: float) -> CallState:
    past = state.past.never_left(event.attempt)
    if event.attempt != past.attempts or state.kind is not CallKind.SUBMIT:
        # A question that did not get out is asked again when it has stayed silent.
        return attrs.evolve(state, past=past)
    past = attrs.evolve(past.told(now, "the socket did not take it", state.address), unsent=past.unsent + 1)
    return _later(call, past, now, _delay_s(config, past.unsent, u), extra=False)


# --- losing ---------------------------------------------------------------------------------------


def _lost(call: Call, state: Asked, event: Lost, config: ClientConfig, now: float, u: float) -> CallState:
    past = attrs.evolve(state.past, failures=state.past.failures + 1, misses=0)
    past = past.told(now, f"link lost: {event.why}", state.address)
    if not may_submit(call, past):
        if past.partial or _used_up(past.failures, config):
            return endings.broker_lost(call, past, now, f"the link to {state.address} was lost: {event.why}")
        return Waiting(past.entered(Phase.UNSENT, now), now, Only(state.address, state.life))
    if _used_up(past.failures, config, event.cause):
        return endings.exhausted(call, past, now, f"the link to {state.address} was lost: {event.why}")
    # The first retry goes out at once: one broken link says nothing about the next one.
    return _later(call, past, now, 0.0 if past.failures == 1 else _delay_s(config, past.failures - 1, u))


def _missed(call: Call, state: Waiting, event: Missed, config: ClientConfig, now: float, u: float) -> CallState:
    if state.only is not None:
        return _missed_the_only(call, state, state.only, event, config, now)
    if not state.avoid or event.elsewhere:
        return state
    if call.fail_fast and state.past.status is Status.NO_SERVICE:
        return endings.exhausted(call, state.past, now, "every broker that could be reached knows no worker")
    return _after_refusals(call, state.past, config, now, u)


def _missed_the_only(
    call: Call, state: Waiting, only: Only, event: Missed, config: ClientConfig, now: float
) -> CallState:
    if event.address != only.address:
        return state
    past = attrs.evolve(state.past.told(now, f"not reached: {event.why}", event.address), misses=state.past.misses + 1)
    if event.foreign:
        return endings.broker_lost(call, past, now, f"something else answers at {only.address} now: {event.why}")
    if _used_up(past.misses, config):
        if _service_decides(call, past) and event.elsewhere:
            return Waiting(past, now, avoid=frozenset({only.address}), extra=True)
        why = f"{only.address} could not be reached again in {past.misses} tries: {event.why}"
        return endings.broker_lost(call, past, now, why)
    return attrs.evolve(state, past=past)


# --- hearing --------------------------------------------------------------------------------------


def _answered_while_waiting(call: Call, state: Waiting, event: Answered, now: float) -> _Step:
    """Of an attempt that was given up; its link is still open."""
    if event.answer.status in (Status.OK, Status.HANDLER_ERROR):
        return _final(call, state.past, event, now), ()
    past, orders = _noted(call, state.past, event)
    if _is_accepted(call, event):
        return endings.accepted(past), orders
    return _freed(call, attrs.evolve(state, past=past)), orders


def _is_accepted(call: Call, event: Answered) -> bool:
    return call.one_way and STATUS_TABLE[event.answer.status].retry is Retry.NOT_FINAL


def _answered(call: Call, state: Asked, event: Answered, config: ClientConfig, now: float, u: float) -> _Step:
    answer = event.answer
    rule = STATUS_TABLE[answer.status]
    if answer.status in (Status.OK, Status.HANDLER_ERROR):
        return _final(call, state.past, event, now), ()
    if answer.status is Status.WRONG_LIFE:
        return _wrong_life(state, event)
    past, orders = _noted(call, state.past, event)
    if _is_accepted(call, event):
        return endings.accepted(past), orders
    state = attrs.evolve(state, past=past)
    if event.life != state.life:
        return state, orders
    if rule.retry is Retry.NOT_FINAL:
        return _alive(call, state, config, now), orders
    if rule.retry is Retry.NEVER or answer.outcome is Outcome.EXECUTED:
        return endings.by_status(call, _where_it_is(past, now), answer, event.body, now), orders
    if answer.attempt < past.attempts:
        return state, orders
    if answer.status is Status.UNKNOWN_CALL:
        return _unknown_call(call, state, event, config, now, u), orders
    return _refused(call, state, event, config, now, u), orders


def _final(call: Call, past: Past, event: Answered, now: float) -> Ended:
    if event.answer.status is Status.OK:
        return endings.replied(past, event.body)
    past, _ = _noted(call, past, event)
    return endings.by_status(call, past, event.answer, event.body, now)


def _noted(call: Call, past: Past, event: Answered) -> tuple[Past, tuple[Order, ...]]:
    """What an answer adds to what is known, whichever attempt it is about; and what the caller gets to see of it."""
    answer = event.answer
    final = STATUS_TABLE[answer.status].retry is not Retry.NOT_FINAL
    if final and answer.outcome is Outcome.NOT_EXECUTED:
        past = past.proven(event.life, answer.attempt, record=_speaks_of_record(past, event))
    past = attrs.evolve(
        past,
        status=answer.status,
        place=answer.place if answer.place is not Place.UNSAID else past.place,
        known=past.known if final else event.life,
        retry_after_s=(answer.retry_after_ms / 1000 or None) if final else past.retry_after_s,
        partial=past.partial or answer.status is Status.PARTIAL,
        vouched=past.vouched or answer.idempotent,
    )
    if answer.status is Status.PARTIAL:
        return past, (Deliver(event.body, partial=True),)
    if answer.status is Status.PROGRESS and call.wants_progress:
        return past, (Deliver(event.body, partial=False),)
    return past, ()


_OF_RECORD = frozenset(
    {Status.EXPIRED, Status.CANCELLED, Status.WORKER_LOST, Status.UNKNOWN_CALL, Status.HANDLER_ERROR}
)
_MAYBE_OF_RECORD = frozenset({Status.NO_SERVICE, Status.OVERLOADED})


def _speaks_of_record(past: Past, event: Answered) -> bool:
    """Whether "not executed" is said of the broker's record (or its fence), or only of the copy that came in.

    A broker that is full, or knows no worker, may refuse a copy without noting anything, and then an older copy that
    is still on its way could be dispatched after all. It does speak of the record once it has shown that it has one.
    """
    status = event.answer.status
    if status in _MAYBE_OF_RECORD:
        # A record that was shown before may be forgotten by now; a refusal without one names no place.
        return past.known == event.life and event.answer.place is not Place.UNSAID
    return status in _OF_RECORD


def _alive(call: Call, state: Asked, config: ClientConfig, now: float) -> Asked:
    # Asking does not wear out a call that cannot be sent twice; one that can be must not be sent for ever to brokers
    # that die of it.
    sent_twice = _safe(call, state.past) or state.past.repeats(state.life)
    failures = state.past.failures if sent_twice else 0
    past = attrs.evolve(_where_it_is(state.past, now), failures=failures, misses=0, unsent=0)
    return attrs.evolve(state, past=past, heard=True, silent_at=now + _patience_s(config))


_PHASES = {
    Place.QUEUED: Phase.QUEUED,
    Place.QUEUED_NO_WORKER: Phase.QUEUED,
    Place.DELIVERED: Phase.RUNNING,
    Place.RUNNING: Phase.RUNNING,
    Place.STUCK: Phase.RUNNING,
    Place.LIMBO: Phase.RUNNING,
}


def _where_it_is(past: Past, now: float) -> Past:
    """With its time put down to where the broker last said that it is."""
    phase = _PHASES.get(past.place)
    return past if phase is None else past.entered(phase, now)


def _wrong_life(state: Asked, event: Answered) -> _Step:
    """Another life than the link's answers: whatever stands between us and the broker did not tell us of a restart.

    This copy was refused, which is proof for it alone: those before it went to the life of the link.
    """
    past = state.past.proven(event.life, event.answer.attempt, record=False)
    return attrs.evolve(state, past=past), (Suspect(state.link, "another life of the broker answers on it"),)


def _unknown_call(call: Call, state: Asked, event: Answered, config: ClientConfig, now: float, u: float) -> CallState:
    past = state.past.told(now, f"the broker has no record of it ({event.answer.outcome.name})", state.address)
    attached = state.kind is CallKind.ATTACH
    refused_for_good = event.answer.outcome is not Outcome.NOT_EXECUTED and not attached
    if refused_for_good or not may_submit(call, past):
        return endings.by_status(call, past, event.answer, event.body, now)
    if attached and event.answer.outcome is Outcome.NOT_EXECUTED:
        # The failure that made us ask was counted; the fence makes sure that nothing can run twice.
        return _later(call, past, now, 0.0, extra=False)
    past = attrs.evolve(past, failures=past.failures + 1)
    if _used_up(past.failures, config):
        return endings.exhausted(call, past, now, "the broker has no record of it")
    return _later(call, past, now, _delay_s(config, past.failures, u))


def _refused(call: Call, state: Asked, event: Answered, config: ClientConfig, now: float, u: float) -> CallState:
    """NO_SERVICE or OVERLOADED: other brokers first, then this one again after a while."""
    status = event.answer.status
    what = STATUS_TABLE[status].meaning
    past = attrs.evolve(state.past.told(now, what, state.address), failures=state.past.failures + 1)
    overloaded = status is Status.OVERLOADED
    cause = RetryCause.OVERLOADED if overloaded else RetryCause.NO_SERVICE
    if _used_up(past.failures, config, cause):
        return endings.exhausted(call, past, now, what)
    if not may_submit(call, past):
        if state.kind is CallKind.SUBMIT:
            return endings.by_status(call, past, event.answer, event.body, now)
        return Waiting(
            past.entered(Phase.UNSENT, now), now + _pause_s(past, config, u), Only(state.address, state.life)
        )
    if event.elsewhere and call.fits(now):
        avoid = state.avoid | {state.address}
        return Waiting(past.entered(Phase.UNSENT, now), now, avoid=avoid, extra=overloaded)
    if not overloaded and call.fail_fast:
        return endings.by_status(call, past, event.answer, event.body, now)
    return _after_refusals(call, past, config, now, u)


def _after_refusals(call: Call, past: Past, config: ClientConfig, now: float, u: float) -> CallState:
    """Every broker that could be asked refused: pause, then begin a new round."""
    pause_s = _pause_s(past, config, u)
    if not call.fits(now + pause_s) and not past.may_have_run:
        return endings.exhausted(call, past, now, "what is left of the time is too short for another round")
    return _later(call, past, now, pause_s, extra=past.status is Status.OVERLOADED)


# --- waiting --------------------------------------------------------------------------------------


def _freed(call: Call, state: Waiting) -> Waiting:
    """A call that turns out to have run nowhere is no longer bound to one broker."""
    return attrs.evolve(state, only=None) if state.only and may_submit(call, state.past) else state


def _later(call: Call, past: Past, now: float, delay_s: float, *, extra: bool = True) -> Waiting:
    """A retry that does not fit into the remaining time does not start; the call ends at its deadline."""
    not_before = now + delay_s if call.fits(now + delay_s) else math.inf
    return Waiting(past.entered(Phase.UNSENT, now), not_before, extra=extra)


def _delay_s(config: ClientConfig, failures: int, u: float) -> float:
    return max(_DELAY_S_MIN, config.retry.backoff.delay_s(failures, u))


def _pause_s(past: Past, config: ClientConfig, u: float) -> float:
    return max(_delay_s(config, past.failures, u), past.retry_after_s or 0.0)


def _used_up(count: int, config: ClientConfig, cause: RetryCause | None = None) -> bool:
    retry = config.retry
    return (retry.attempts is not None and count >= retry.attempts) or (cause is not None and cause not in retry.causes)
