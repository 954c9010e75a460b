"""Which moment of our own clock a broker counts the times of one link from, and how that stays true for days.

The broker counts from the receipt of our hello, a moment G of its clock that never changes while the link lives. We
know only that it lay between ``t0``, when the hello was sent, and ``t1``, when its answer came. Clocks that nobody
disciplines go 20 to 100 ppm apart, so after a day what we take for G is seconds off. So every now and then we ask the
broker how long ago G was (``mmi.reliable.time``): its answer S, asked for at ``a`` and here at ``b``, says that G lay
between a - S and b - S of our clock as it goes now. Only our reckoning changes, never the broker's. That is why

* each frame, whenever it was written, and whether the answer came late or never, means to the broker what it meant when
  it was written; there is no moment at which the two ends could speak of different zeros;
* a broker that does not answer, or does not know the question, costs nothing but that the old reckoning goes on;
* a link that is never idle is asked like any other: nothing waits for the answer.

The error of a time is then at most (difference of the rates) x (age of the reckoning), beside the way of one message;
and the age is below two intervals wherever the loop runs and the broker answers.

Only where nobody has run the loop for so long, as in a blocking client between two calls, new calls wait for the answer
(``reliable.protocol.link``): for once, not again before the broker has shown that it knows the question.

Spec: 8/MMI; ``docs/reference/extension.md``, "Session time".
"""

from __future__ import annotations

import math
from typing import Final

import attrs

from reliable.types import Frames
from reliable.wire.mmi import FOUND, NOT_FOUND, NOT_IMPLEMENTED, TIME_STAMP_BYTES, read_time_answer, time_query
from reliable.wire.values import value

__all__ = ["CLOCK_RATES_APART_MAX", "TIME_TAG", "SessionTime", "begin"]

TIME_TAG: Final = "session time"
"""``Send.tag`` of a client's question."""
CLOCK_RATES_APART_MAX: Final = 0.005
"""No two clocks go further apart than this, as a share of the time; 50 times what bad quartz does."""
_AGAIN_S: Final = 1.0
_READING_S: Final = 0.001
"""The broker says whole milliseconds, rounded down."""


@value
class SessionTime:
    """What is known of the broker's zero on one link.

    Attributes:
        t0: Not after it: deadlines are written against this.
        t1: Not before it: what errs to the past is written, and deadlines are read, against this.
        at: When the two were found; since then the clocks have gone apart.
        ask_at: When to ask (again); infinity: never.
        asked_at: When the open question was asked; None: there is none.
        questions: How many were asked: the number of the open one.
        waited: Calls have waited for an answer in vain, and are not to do so again.
    """

    t0: float
    t1: float
    at: float
    ask_at: float = math.inf
    asked_at: float | None = None
    questions: int = 0
    waited: bool = False

    def ask(self, now: float, every_s: float) -> tuple[SessionTime, Frames]:
        """The question is due: the next state and the frames to send. An older question is given up."""
        number = self.questions + 1
        asked = attrs.evolve(self, ask_at=now + every_s, asked_at=now, questions=number)
        return asked, time_query(_stamp(number))

    def answered(self, body: Frames, now: float) -> SessionTime:
        """A broker's answer to some question of this kind; ``self`` if it does not answer the open one."""
        if self.asked_at is None or not body:
            return self
        if body[0] in (NOT_IMPLEMENTED, NOT_FOUND):
            return attrs.evolve(self, asked_at=None, ask_at=math.inf)
        read = read_time_answer(body[1:]) if body[0] == FOUND else None
        if read is None or read[0] != _stamp(self.questions):
            return self
        told_s = read[1] / 1000
        if now - self.asked_at > self.width_s(now):
            # Nobody read it in time, or it was long on its way: what was known before is better.
            return attrs.evolve(self, asked_at=None)
        # The clocks have gone apart during the answer's way, too: what is not after the zero must stay so by any clock.
        way_s = now - self.asked_at
        t1 = now - told_s + way_s * CLOCK_RATES_APART_MAX
        return SessionTime(
            self.asked_at - told_s - _READING_S, t1, self.asked_at, self.ask_at, questions=self.questions
        )

    def in_vain(self, now: float) -> SessionTime:
        """Calls have waited for the answer as long as they may. If the next question is due, let it not be at once."""
        return attrs.evolve(self, waited=True, ask_at=max(self.ask_at, now + _AGAIN_S))

    def width_s(self, now: float) -> float:
        """How far apart the earliest and the latest moment are that the broker may mean."""
        return self.t1 - self.t0 + (now - self.at) * CLOCK_RATES_APART_MAX

    def old(self, now: float, every_s: float) -> bool:
        """Whether a question was due so long ago that nobody can have been there to ask it, or to hear the answer."""
        return now - self.at >= 2 * every_s


def begin(t0: float, t1: float, every_s: float | None) -> SessionTime:
    """From a hello that was sent at ``t0`` and answered at ``t1``; asked for every so many seconds, None: never."""
    return SessionTime(t0, t1, t1, math.inf if every_s is None else t1 + every_s)


def _stamp(number: int) -> bytes:
    return number.to_bytes(TIME_STAMP_BYTES, "big")
