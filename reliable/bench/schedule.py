"""When calls are due, and whose turn it is. Pure: the clock and the chance are the caller's."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

__all__ = ["ARRIVALS", "due_times", "turns"]

ARRIVALS: Final = ("even", "random")
"""How calls of an open loop follow each other."""
_T = TypeVar("_T")


def due_times(rate: float, seconds: float, arrivals: str = "even", rng: random.Random | None = None) -> Iterator[float]:
    """When each call of an open loop is to be sent, in seconds from its start; all lie before ``seconds``.

    They are fixed before anything is known of the replies. A loop that is late sends at once what is overdue, and a
    call's time counts from when it was due, so that a stall shows in every call that had to wait for it.

    Args:
        rate: Calls per second on average, above 0.
        seconds: How long it goes on.
        arrivals: ``even``: the same time between any two. ``random``: as many callers that know nothing of each other
            make them (a Poisson process).
        rng: For ``random``.

    Raises:
        ValueError: The rate is not above 0, or the arrivals are of another kind.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"a rate must be positive and finite, not {rate!r}")
    if arrivals == "even":
        return (number / rate for number in range(math.ceil(rate * seconds)))
    if arrivals == "random":
        return _poisson(rate, seconds, rng or random.Random(0))
    raise ValueError(f"arrivals are one of {', '.join(ARRIVALS)}, not {arrivals!r}")


def _poisson(rate: float, seconds: float, rng: random.Random) -> Iterator[float]:
    due = rng.expovariate(rate)
    while due < seconds:
        yield due
        due += rng.expovariate(rate)


def turns(names: Sequence[_T], number: int) -> list[_T]:
    """The order of a round: each begins with another one, and every second goes backwards.

    So what comes first or last in a round, or after a certain other one, changes from round to round.
    """
    if not names:
        return []
    shift = number % len(names)
    order = [*names[shift:], *names[:shift]]
    return order[::-1] if number % 2 else order
