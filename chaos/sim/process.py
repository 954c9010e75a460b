"""What every process of a world has: a loop that is woken, and links that it opened.

A process can be killed, frozen (stopped by a signal, its ZMTP heartbeats stay away) and stalled (its loop stands still
while libzmq's own thread goes on, as when a handler holds the GIL).
"""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from chaos.history import History, Pause
from chaos.sim.clock import Agenda, Appointment
from chaos.sim.describe import describe_from_broker, describe_to_broker
from chaos.sim.network import Connection, Network, SendResult
from chaos.sim.trace import Trace
from reliable.protocol.events import CloseLink, LinkClosed, LinkOpened, OpenLink, Received, Send, Unsent
from reliable.types import Jitter

__all__ = ["Actor", "Contract", "LinkActor", "Surroundings", "WorldError"]

_ROUNDING_S: Final = 1e-9
_SENT: Final = SendResult.SENT


class WorldError(AssertionError):
    """An engine broke its contract with the shell."""


@attrs.frozen
class Surroundings:
    """What every process of a world shares."""

    agenda: Agenda
    network: Network
    trace: Trace
    history: History
    ids: Callable[[int], bytes]
    jitter: Jitter
    rate_of: Callable[[str], float] = lambda _name: 1.0
    """How fast the clock of a process goes: seconds that it shows in one second."""


class Contract(Protocol):
    """What the wake-up logic needs of any engine."""

    def timers(self, now: float) -> None: ...
    def next_deadline(self) -> float | None: ...


class Actor(abc.ABC):
    """A process with one engine at a time."""

    def __init__(self, around: Surroundings, name: str) -> None:
        self.name = name
        self.frozen = False
        self.stalled = False
        self.alive = False
        self.leaving = False
        """Asked to stop."""
        self.incarnation = 0
        self.around = around
        self._agenda = around.agenda
        self._clock = around.agenda.clock
        self._trace = around.trace
        self._rate = around.rate_of(name)
        self._clock_from_s = around.agenda.clock()
        self._wake_up = Appointment(0.0, None)
        self._loop = self.turn
        self._timer: Appointment | None = None
        self._due_s: float | None = None
        """When the engine wants to be woken; the timer may ring before, and is set anew then."""
        self.stood_still_s: float | None = None
        """By its own clock."""
        self._paused_s = 0.0

    @property
    def running(self) -> bool:
        """Whether its loop runs."""
        return self.alive and not self.frozen and not self.stalled

    def now(self) -> float:
        """What the clock of this process shows; all clocks were set at the beginning, and some go wrong since."""
        true_s = self._clock.reading
        return true_s if self._rate == 1.0 else self._clock_from_s + (true_s - self._clock_from_s) * self._rate

    def _true(self, shown_s: float) -> float:
        """When its clock will show that; a little later, so that rounding cannot make it early."""
        if self._rate == 1.0:
            return shown_s
        return self._clock_from_s + (shown_s - self._clock_from_s) / self._rate + _ROUNDING_S

    def wake(self) -> None:
        """Let the loop turn, now; many causes make one turn."""
        if self.alive and self._wake_up.action is None and not self.frozen and not self.stalled:
            self._agenda.at_once(self._wake_up, self._loop)

    def freeze(self) -> None:
        """SIGSTOP."""
        if self.alive and not self.frozen:
            self.note("frozen")
            self._stands_still()
            self.frozen = True
            self.around.network.froze(self)

    def thaw(self) -> None:
        """SIGCONT."""
        if self.frozen:
            self.note("continued")
            self.frozen = False
            self.around.network.thawed(self)
            self.goes_on()

    def stall(self) -> None:
        """The loop stands still; connections live on."""
        if self.alive and not self.stalled:
            self.note("stalled")
            self._stands_still()
            self.stalled = True

    def unstall(self) -> None:
        """The loop goes on."""
        if self.stalled:
            self.note("goes on")
            self.stalled = False
            self.goes_on()

    def _stands_still(self) -> None:
        if self.running:
            self.stood_still_s = self.now()
            self._paused_s = self._clock()

    def goes_on(self) -> None:
        if self.running:
            pause = Pause(self._paused_s, self._clock())
            self.around.history.pauses.setdefault(self.name, []).append(pause)
        self.wake()

    def dies(self) -> None:
        self.alive = self.frozen = self.stalled = self.leaving = False
        self.stood_still_s = self._due_s = None
        self._wake_up.cancel()

    def note(self, text: str) -> None:
        self._trace(f"{self.name} {text}")

    @abc.abstractmethod
    def turn(self) -> None:
        """The loop runs once: take in what has arrived."""

    def rest(self, engine: Contract, now: float) -> None:
        """Carry out what is due and arrange for the next wake-up."""
        deadline = engine.next_deadline()
        if deadline is not None and deadline <= now:
            raise WorldError(f"{self.name} would spin: next_deadline() {deadline} <= now {now}, after timers()")
        self._due_s = when = deadline if deadline is None or self._rate == 1.0 else self._true(deadline)
        timer = self._timer
        if when is not None and (timer is None or when < timer.when):
            self._set_timer(when)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._agenda.at(when, self._rings)

    def _rings(self) -> None:
        """Most deadlines are put off before they come, so the timer looks when it rings, and not before."""
        self._timer = None
        due_s = self._due_s
        if due_s is None:
            return
        if due_s > self._clock.reading:
            self._set_timer(due_s)
        else:
            self.wake()


class LinkActor(Actor):
    """A process that connects: links, and a mailbox in which everything waits that its loop has not read yet."""

    def __init__(self, around: Surroundings, name: str) -> None:
        super().__init__(around, name)
        self._links: dict[int, Connection] = {}
        self.ended: dict[str, float] = {}
        """When the last link to an address was over, by this process's clock."""
        self.refused: deque[Unsent] = deque()
        """Sends that the socket did not take; the engine hears of them before anything else."""

    @abc.abstractmethod
    def post(self, event: object) -> None:
        """Put an event into the mailbox and wake the process."""

    def deliver(self, event: LinkOpened | LinkClosed | Received) -> None:
        """Put an event where the process finds it when it runs."""
        self.post(event)

    def stale(self, event: object) -> bool:
        """An event about a link that the engine has closed meanwhile is not delivered."""
        if not isinstance(event, (LinkOpened, LinkClosed, Received)):
            return False
        if event.link not in self._links:
            return True
        if isinstance(event, LinkClosed):
            self.ended[self._links.pop(event.link).address] = self.now()
        return False

    def send(self, effect: Send) -> None:
        """Carry out a send; one that the socket does not take is kept in ``refused``."""
        link, frames = effect.link, effect.frames
        connection = self._links.get(link)
        if connection is None:
            raise WorldError(f"{self.name} sends on link {link}, which is over")
        sent = self.around.network.send(connection, frames)
        self._trace.message(self.name, ">", link, frames, "sent" if sent is _SENT else sent.value)
        if self._trace.verbose:
            self._trace.remark(describe_to_broker(frames))
        if sent is not _SENT:
            self.refused.append(Unsent(link, effect.tag))

    def do_link(self, effect: OpenLink | CloseLink | Send) -> None:
        """Carry out what concerns a link."""
        match effect:
            case Send():
                self.send(effect)
            case OpenLink(link=link, address=address):
                if link in self._links:
                    raise WorldError(f"{self.name} opens link {link} twice")
                self.note(f"opens link {link} to {address}")
                self._links[link] = self.around.network.connect(self, link, address)
            case CloseLink(link=link, linger=linger):
                self.note(f"closes link {link}{' with linger' if linger else ''}")
                connection = self._links.pop(link, None)
                if connection is not None:
                    self.ended[connection.address] = self.now()
                    self.around.network.close(connection, linger=linger)

    def note_received(self, event: object) -> None:
        """Put a message that is read into the trace."""
        if isinstance(event, Received):
            self._trace.message(self.name, "<", event.link, event.frames)
            if self._trace.verbose:
                self._trace.remark(describe_from_broker(event.frames))

    def drop_links(self) -> None:
        for connection in self._links.values():
            self.around.network.close(connection)
        self._links.clear()
        self.ended.clear()
        self.refused.clear()
