"""When a peer was last heard, when to say something to it, and when it is lost.

Two clocks run for each peer, one per direction, and neither counts anything:

* *heard*: any message from the peer proves that it lives; after ``timeout_s`` without one it is lost (7/MDP: "any
  received command except DISCONNECT acts as a heartbeat").
* *said*: after ``interval_s`` in which nothing was sent, a heartbeat is due; whatever is sent postpones it (7/MDP:
  no heartbeats while other commands go out).

A process that was itself stalled has heard nothing because it did not listen. ``excused`` moves *heard* on by the
length of such a gap, so that nobody is judged by it; *said* stays, because the peer did miss our heartbeats.

Values, not objects: each step gives a new one, so that a state which holds one stays frozen.
"""

from __future__ import annotations

from reliable.config import Heartbeat
from reliable.wire.values import value

__all__ = ["Liveness"]


@value
class Liveness:
    """Both clocks of one peer."""

    interval_s: float
    timeout_s: float
    heard: float
    """When the last sign of life came, moved on by gaps that were our own fault."""
    said: float
    """When something was last sent."""

    @classmethod
    def begin(cls, heartbeat: Heartbeat, now: float) -> Liveness:
        """Both clocks start at ``now``: the peer has just been heard and spoken to."""
        return cls(heartbeat.interval_s, heartbeat.timeout_s, now, now)

    def after_hearing(self, now: float) -> Liveness:
        """Something came from the peer at ``now``."""
        return Liveness(self.interval_s, self.timeout_s, now, self.said)

    def after_saying(self, now: float) -> Liveness:
        """Something was sent to the peer at ``now``."""
        return Liveness(self.interval_s, self.timeout_s, self.heard, now)

    def excused(self, gap_s: float, now: float) -> Liveness:
        """We were stalled for ``gap_s`` seconds until ``now``; the peer's silence in them does not count."""
        return Liveness(self.interval_s, self.timeout_s, min(self.heard + max(gap_s, 0.0), now), self.said)

    @property
    def beat_at(self) -> float:
        """When a heartbeat is due unless something else is sent before."""
        return self.said + self.interval_s

    @property
    def lost_at(self) -> float:
        """When the peer is lost unless it is heard before."""
        return self.heard + self.timeout_s

    def beat_due(self, now: float) -> bool:
        """Whether a heartbeat must go out."""
        return self.beat_at <= now

    def lost(self, now: float) -> bool:
        """Whether the peer was silent for too long."""
        return self.lost_at <= now

    def silent_s(self, now: float) -> float:
        """Seconds since the last sign of life."""
        return now - self.heard
