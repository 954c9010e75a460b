"""Observers of clients and workers: several at once, one that writes a log, and what keeps a bad one from doing harm.

Engines call their observer in the midst of their work and trust it not to raise. Users write observers, so the shells
hand the engines a guarded one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

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
from reliable.types import Observer

__all__ = ["LoggingObserver", "guarded", "observers"]

_LOGGER: Final = logging.getLogger("reliable")


class _Guarded:
    """Passes observations on, and swallows what the observer throws; the first time is logged."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._told = False

    def __call__(self, observation: object, /) -> None:
        try:
            self._observer(observation)
        except Exception:
            # Ctrl-C passes: it is not the observer's. Two threads here at once may log twice, which does no harm.
            if not self._told:
                self._told = True
                _LOGGER.exception(
                    "the observer %r raised at %r; calls go on, and its further errors are not logged",
                    self._observer,
                    type(observation).__name__,
                )


class _Several:
    """Tells several, in order."""

    def __init__(self, members: tuple[_Guarded, ...]) -> None:
        self._members = members

    def __call__(self, observation: object, /) -> None:
        for member in self._members:
            member(observation)


def guarded(observer: Observer | None) -> Observer | None:
    """The same observer, but it never raises: its first error is logged under ``reliable``, all are swallowed."""
    return None if observer is None else _guard(observer)


def _guard(observer: Observer) -> _Guarded:
    return observer if isinstance(observer, _Guarded) else _Guarded(observer)


def observers(*members: Observer) -> Observer:
    """One observer that tells several, in the order given; an error of one does not keep an observation from the next.

    Args:
        members: Any number of them.

    Returns:
        What ``Client(..., observer=...)`` takes.
    """
    return _Several(tuple(_guard(member) for member in members))


def _id(call_id: bytes) -> str:
    """Enough of a call id to tell calls apart by eye."""
    return call_id[:4].hex()


def _name(service: bytes) -> str:
    return service.decode("ascii", "backslashreplace")


def _attempt_started(seen: AttemptStarted) -> str:
    asks = " (asks only)" if seen.attach else ""
    return f"call {_id(seen.call_id)}: attempt {seen.attempt} through {seen.broker}{asks}"


def _attempt_ended(seen: AttemptEnded) -> str:
    heard = "silence" if seen.status is None else seen.status.name.lower().replace("_", "-")
    which = f"call {_id(seen.call_id)}: attempt {seen.attempt} through {seen.broker}"
    return f"{which} ended: {heard}, {seen.outcome.name}, {seen.reason}"


def _call_ended(seen: CallEnded) -> str:
    how = seen.error or "ok"
    return (
        f"call {_id(seen.call_id)} of {_name(seen.service)}: {how}, {seen.outcome.name}, "
        f"{seen.attempts} attempts, {seen.elapsed_s:.3f} s"
    )


def _level_and_line(observation: object) -> tuple[int, Callable[[], str]]:
    """The text is made only if somebody reads it."""
    match observation:
        case CallStarted(call_id, service):
            return logging.DEBUG, lambda: f"call {_id(call_id)} of {_name(service)}: started"
        case AttemptStarted():
            return logging.DEBUG, lambda: _attempt_started(observation)
        case AttemptEnded():
            return logging.DEBUG, lambda: _attempt_ended(observation)
        case RetryScheduled(call_id, attempt, delay_s):
            return logging.DEBUG, lambda: f"call {_id(call_id)}: attempt {attempt} follows in {delay_s:.3f} s"
        case RetryRefused(call_id, reason):
            return logging.INFO, lambda: f"call {_id(call_id)}: no further attempt: {reason}"
        case HedgeStarted(call_id, _, delay_s):
            return logging.DEBUG, lambda: f"call {_id(call_id)}: hedged after {delay_s:.3f} s"
        case FailedOver(call_id, old, new):
            return logging.INFO, lambda: f"call {_id(call_id)}: failed over from {old} to {new}"
        case CallEnded():
            return logging.DEBUG, lambda: _call_ended(observation)
        case BreakerChanged(broker, old, new):
            return logging.INFO, lambda: f"breaker of {broker}: {old} -> {new}"
        case BrokerFound(broker, life, restarted):
            return _found(broker, life, restarted)
        case LinkLost(broker, reason):
            return logging.INFO, lambda: f"link to {broker} lost: {reason}"
        case MessageDropped(peer, reason):
            return logging.WARNING, lambda: f"message from {peer} dropped: {reason}"
        case _:
            return logging.DEBUG, lambda: repr(observation)


def _found(broker: str, life: bytes, restarted: bool) -> tuple[int, Callable[[], str]]:
    if restarted:
        return logging.INFO, lambda: f"broker {broker} has restarted, life {life.hex()}"
    return logging.DEBUG, lambda: f"broker {broker} answers, life {life.hex()}"


class LoggingObserver:
    """Writes one line for each observation: calls and attempts as DEBUG, what happens to brokers as INFO, messages that
    were dropped as WARNING. Call ids are shortened to 8 hexadecimal digits.

    Args:
        logger: Where to; not given, the logger ``reliable``. Its handlers run under the client's lock, so none of
            them may wait for anything slow.
    """

    def __init__(self, logger: logging.Logger = _LOGGER) -> None:
        self._logger = logger

    def __call__(self, observation: object, /) -> None:
        """Write the line, if its level is wanted."""
        level, line = _level_and_line(observation)
        if self._logger.isEnabledFor(level):
            # One line each: a reason may quote a peer, and a peer may send line breaks.
            self._logger.log(level, "%s", " ".join(line().splitlines()))
