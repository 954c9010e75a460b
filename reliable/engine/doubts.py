"""Final reports that a socket took, and that may be lost all the same: the link broke before the broker had them.

MDP acknowledges no reply. So what was reported in the last seconds before a link broke is named and said once more on
the next one, if that leads to the same life of the same broker; a broker that had it the first time ignores it. What
lies further back has surely arrived: a link that does not carry data is found out and closed within that time.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

from reliable.engine.jobs import Handover
from reliable.types import Frames

__all__ = ["REPORTS_MAX", "Doubts", "Sent"]

REPORTS_MAX: Final = 1000
_MARGIN_S: Final = 1.0


@attrs.frozen(eq=False)
class Sent:
    """One final report on its way."""

    handover: Handover
    frames: Frames = attrs.field(repr=False)
    at: float


class Doubts:
    """What was reported lately on one link, oldest first.

    Args:
        detection_s: Within which a broken link is noticed.
        bytes_max: Of all reports together; past it the oldest are taken for arrived.
    """

    def __init__(self, *, detection_s: float, bytes_max: int) -> None:
        self.window_s = detection_s + _MARGIN_S
        self._bytes_max = bytes_max
        self._sent: deque[Sent] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, handover: Handover, frames: Frames, now: float) -> None:
        """A report was handed to the socket."""
        self._sent.append(Sent(handover, frames, now))
        self._bytes += _size(frames)
        while self._sent and (
            len(self._sent) > REPORTS_MAX or self._bytes > self._bytes_max or self._sent[0].at + self.window_s < now
        ):
            self._bytes -= _size(self._sent.popleft().frames)

    def take(self, now: float) -> list[Sent]:
        """The link broke: what may not have arrived. Nothing is in doubt any more afterwards."""
        doubtful = [sent for sent in self._sent if sent.at + self.window_s >= now]
        self._sent.clear()
        self._bytes = 0
        return doubtful


def _size(frames: Frames) -> int:
    return sum(map(len, frames))
