"""Mistakes in the client."""

from __future__ import annotations

import math
from typing import Any

import attrs

from brokers.records import CallTable
from chaos.planted.values import Change
from reliable.config import Backoff, ClientConfig
from reliable.engine import client_calls
from reliable.engine.breaker import Breaker
from reliable.engine.budget import TokenBucket
from reliable.engine.client_calls import CallDesk
from reliable.engine.client_state import OpenCall
from reliable.engine.hedging import Pair
from reliable.errors import Outcome, RequestError, WorkerFailed
from reliable.protocol import call as machine
from reliable.protocol import call_endings, session
from reliable.protocol.call_endings import Ended
from reliable.protocol.call_events import Asked, Deliver, Grant, Only, Tick, Waiting
from reliable.protocol.call_facts import Call, Past
from reliable.types import Frames
from reliable.wire.extension import CallFlag

__all__ = [
    "another_life_is_the_same",
    "backoff_without_jitter",
    "breaker_never_closes",
    "budget_ignored",
    "call_ends_twice",
    "deadline_ignored_while_asked",
    "loser_not_cancelled",
    "news_told_twice",
    "ok_claims_unknown",
    "refused_hedge_decides",
    "repeats_what_must_not_be",
    "session_time_never_renewed",
]


def another_life_is_the_same() -> list[Change]:
    """A broker at the same address is taken for the one from before, with all that it knew; and it agrees."""
    grants = machine._grant

    def _grant(call: Call, state: Waiting, grant: Grant, config: ClientConfig, now: float) -> Any:
        if state.only is not None:
            copies = tuple((grant.life, attempt) for _, attempt in state.past.copies)
            past = attrs.evolve(state.past, copies=copies)
            state = attrs.evolve(state, past=past, only=Only(state.only.address, grant.life))
        return grants(call, state, grant, config, now)

    begins = CallTable.__init__

    def trusting(self: CallTable, now: float, **limits: int) -> None:
        begins(self, now, **limits)
        self.horizon = -math.inf

    return [Change(machine, "_grant", _grant), Change(CallTable, "__init__", trusting)]


def repeats_what_must_not_be() -> list[Change]:
    """After a lost link every call is simply sent again."""

    def may_submit(_call: Call, _past: Past) -> bool:
        return True

    def repeats(_self: Past, _life: bytes) -> bool:
        return False

    return [Change(machine, "may_submit", may_submit), Change(Past, "repeats", repeats)]


def deadline_ignored_while_asked() -> list[Change]:
    """A call that has an attempt out waits for its answer, whatever the time."""
    passes = machine._time_passed

    def _time_passed(call: Call, state: Any, event: Tick, config: ClientConfig, now: float) -> Any:
        return passes(attrs.evolve(call, deadline=None), state, event, config, now)

    return [Change(machine, "_time_passed", _time_passed), *_alarms_at_silence_alone()]


def _alarms_at_silence_alone() -> list[Change]:
    """Or the alarm at the deadline would ring for ever."""
    arms = CallDesk.arm

    def arm(self: CallDesk, entry: OpenCall) -> None:
        deadline = entry.call.deadline
        if isinstance(entry.state, Asked) and deadline is not None and deadline <= self._state.now:
            self._alarms.set(entry.call.call_id, entry.state.silent_at)
        else:
            arms(self, entry)

    return [Change(CallDesk, "arm", arm)]


def backoff_without_jitter() -> list[Change]:
    """Everybody who lost the same broker comes back at the same moment."""

    def delay_s(self: Backoff, attempt: int, _u: float) -> float:
        return min(self.delay_s_max, self.initial_s * self.factor ** min(max(attempt - 1, 0), 64))

    return [Change(Backoff, "delay_s", delay_s)]


def breaker_never_closes() -> list[Change]:
    """A good answer changes nothing: one call at a time goes through for ever."""

    def succeeded(self: Breaker) -> bool:
        self.failures = 0
        return False

    return [Change(Breaker, "succeeded", succeeded)]


def loser_not_cancelled() -> list[Change]:
    """The slower one of a pair runs on for nobody."""

    def _silence(_self: CallDesk, entry: OpenCall | None, _pair: Pair, _now: float) -> None:
        if entry is not None:
            entry.muted = True

    return [Change(CallDesk, "_silence", _silence)]


def budget_ignored() -> list[Change]:
    """Extra attempts cost nothing."""

    def take(_self: TokenBucket) -> bool:
        return True

    return [Change(TokenBucket, "take", take)]


def call_ends_twice() -> list[Change]:
    """The user is told again when the other one of a pair is over as well."""
    over = CallDesk._over

    def _over(self: CallDesk, entry: OpenCall, ended: Ended, now: float) -> None:
        over(self, entry, ended, now)
        if entry.muted and not entry.call.flags & CallFlag.HEDGE:
            self.finish(entry.call, ended, now)

    return [Change(CallDesk, "_over", _over)]


def ok_claims_unknown() -> list[Change]:
    """A reply is passed on, and the claim beside it is that nobody knows."""

    def replied(past: Past, body: Frames) -> Ended:
        return Ended(past, body, Outcome.UNKNOWN)

    return [Change(call_endings, "replied", replied)]


def news_told_twice() -> list[Change]:
    """Each word of progress is passed on twice."""
    delivers = CallDesk._deliver

    def _deliver(self: CallDesk, entry: OpenCall, order: Deliver, now: float) -> None:
        delivers(self, entry, order, now)
        if not order.partial:
            delivers(self, entry, order, now)

    return [Change(CallDesk, "_deliver", _deliver)]


def session_time_never_renewed() -> list[Change]:
    """What was found at the hello is believed for ever, by clients and workers."""
    begins = session.begin

    def begin(t0: float, t1: float, _every_s: float | None) -> session.SessionTime:
        return begins(t0, t1, None)

    return [Change(session, "begin", begin)]


def refused_hedge_decides() -> list[Change]:
    """One of a pair that was never entered at its worker ends the call, whatever the other one does."""

    def decides(ended: Ended) -> bool:
        return not isinstance(ended.result, RequestError) or isinstance(ended.result, WorkerFailed)

    return [Change(client_calls, "decides", decides)]
