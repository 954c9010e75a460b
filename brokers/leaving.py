"""How a broker leaves: first it takes nothing new, then it waits for what workers hold, and only then says goodbye.

    serving ──begin──▶ draining ──all is in and it is quiet, or time is up──▶ over ──finish──▶ left

* Calls that wait in a queue, and those that still come, end as OVERLOADED, NOT_EXECUTED: their clients go to the next
  broker. The same goes for what a worker gives back. Nothing is handed to a worker any more.
* Our clients are told once that this broker takes no calls for so long (an answer about no call, see
  docs/reference/extension). A link gives no other sign, and what a client sends just before it breaks may have run for
  all that the client knows. So the broker also stays until it has been quiet for a moment: who sends meanwhile is
  refused, which is proof.
* What workers hold goes on as ever: reports, progress, cancelling, deadlines, limbo. A worker that lost its connection
  may come back with what it holds; others are not registered.
* What may be repeated does not wait for a worker that is gone or stuck: its client has it run elsewhere.
* Workers are told DISCONNECT at the very end, when their results are in.
"""

from __future__ import annotations

from typing import Final

from brokers import answers
from brokers.endings import Endings
from brokers.peers import LeaveTimer
from brokers.records import Call, CallState
from brokers.state import BrokerState
from brokers.workers import WorkerDesk
from reliable.status import Status

__all__ = ["QUIET_S", "Leaving"]

QUIET_S: Final = 0.25
"""How long nothing new may have come: longer than a message takes that was sent before its client knew."""


class Leaving:
    """Ends the work of one broker.

    Args:
        state: The tables.
        endings: Ends calls.
        workers: Disconnects workers.
    """

    def __init__(self, state: BrokerState, endings: Endings, workers: WorkerDesk) -> None:
        self._state = state
        self._endings = endings
        self._workers = workers
        self._held: list[Call] = []
        """What workers had when the drain began; since then it only gets less."""
        self._timer = LeaveTimer()

    def begin(self, until: float) -> None:
        """Take nothing new. A second time, the earlier end counts.

        Args:
            until: When to go at the latest; not later than now is at once.
        """
        state = self._state
        state.leave_by = min(state.leave_by, until)
        if not state.stopped:
            state.stopped = True
            state.draining_since = state.now
            self._held = [call for call in _in_hands(state) if call.state is not CallState.DONE]
            self._refuse_queued()
            if until > state.now:
                self._tell_clients()
        self._arm()

    def _refuse_queued(self) -> None:
        """Nothing here will run them. What is proven of each is said."""
        state = self._state
        for service in list(state.services.by_name.values()):
            while service.queue.length:
                call = state.pop(service)
                self._endings.finish(call, Status.OVERLOADED, call.proven_outcome())
            state.services.settle(service)

    def _tell_clients(self) -> None:
        state = self._state
        pause_s = state.leave_by - state.now
        for key, client in state.peers.clients():
            peer, *addresses = key if isinstance(key, tuple) else (key,)
            state.outbox.append(answers.leaving(peer, addresses, client.version, state.life, pause_s))
            state.heard_new_at = state.now

    def over(self, now: float) -> bool:
        """Whether there is nothing left to wait for. False if no drain was begun."""
        state = self._state
        if not state.stopped:
            return False
        while self._held and self._held[-1].state is CallState.DONE:
            self._held.pop()
        return now >= state.leave_by or (not self._held and now >= state.heard_new_at + QUIET_S)

    def _arm(self) -> None:
        """Wake the shell when time alone may have ended the drain."""
        state = self._state
        quiet_at = state.heard_new_at + QUIET_S
        when = min(state.leave_by, quiet_at) if quiet_at > state.now else state.leave_by
        if when > state.now and not state.left:
            state.wheel.set(self._timer, when)

    def due(self) -> None:
        """It may be over; the shell looks. If it is not, it looks again later."""
        self._arm()

    def finish(self) -> None:
        """End every call with an answer, send DISCONNECT to every worker, refuse what comes after."""
        state = self._state
        self.begin(state.now)
        state.left = True
        state.wheel.drop(self._timer)
        for worker in list(state.workers.values()):
            self._workers.disconnect(worker)
        for hand_over in list(state.limbo.values()):
            state.wheel.drop(hand_over)
            self._workers.hand_over_due(hand_over)


def _in_hands(state: BrokerState) -> list[Call]:
    held = [hand_over for worker in state.workers.values() for hand_over in worker.in_hand.values()]
    held += state.limbo.values()
    return [hand_over.call for hand_over in held if hand_over.current]
