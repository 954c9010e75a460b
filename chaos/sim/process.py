"""What every process of a world has: a loop that is woken, and links that it opened.

A process can be killed, frozen (stopped by a signal, its ZMTP heartbeats stay away) and stalled (its loop stands still
while libzmq's own thread goes on, as when a handler holds the GIL).
"""

from __future__ import annotations

import abc
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs

from chaos.history import History, Pause
from chaos.sim.clock import Agenda, Appointment
from chaos.sim.describe import describe_from_broker, describe_to_broker
from chaos.sim.network import Connection, Network, SendResult
from chaos.sim.trace import Trace
from reliable.protocol.events import CloseLink, LinkClosed, LinkOpened, OpenLink, Received, Send, Unsent
from reliable.types import Jitter

__all__ = ["Actor", "Contract", "LinkActor", "Surroundings", "WorldError", "fingerprint"]

_ROUNDING_S: Final = 1e-9
_BETWEEN: Final = b"|"


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
        self._clock = around.agenda.clock
        self._trace = around.trace
        self._rate = around.rate_of(name)
        self._clock_from_s = around.agenda.clock()
        self._wake_up: Appointment | None = None
        self._timer: Appointment | None = None
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
        if self.alive and not self.frozen and not self.stalled and (self._wake_up is None or not self._wake_up.open):
            self._wake_up = self.around.agenda.after(0.0, self.turn)

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
        self.stood_still_s = None
        for appointment in (self._wake_up, self._timer):
            if appointment is not None:
                appointment.cancel()

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
        timer = self._timer
        when = None if deadline is None else self._true(deadline)
        if timer is not None and timer.open:
            if timer.when == when:
                return
            timer.cancel()
        self._timer = None if when is None else self.around.agenda.at(when, self.wake)


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

    def do_link(self, effect: OpenLink | CloseLink | Send) -> None:
        match effect:
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
            case Send(link=link, frames=frames, tag=tag):
                if link not in self._links:
                    raise WorldError(f"{self.name} sends on link {link}, which is over")
                sent = self.around.network.send(self._links[link], frames)
                self.note(f"> link {link} {fingerprint(frames)} {sent.value}")
                if self.around.trace.verbose:
                    self.around.trace.remark(describe_to_broker(frames))
                if sent is not SendResult.SENT:
                    self.refused.append(Unsent(link, tag))

    def note_received(self, event: object) -> None:
        if isinstance(event, Received):
            self.note(f"< link {event.link} {fingerprint(event.frames)}")
            if self.around.trace.verbose:
                self.around.trace.remark(describe_from_broker(event.frames))

    def drop_links(self) -> None:
        for connection in self._links.values():
            self.around.network.close(connection)
        self._links.clear()
        self.ended.clear()
        self.refused.clear()


def fingerprint(frames: Sequence[bytes]) -> str:
    """Frame count and a checksum: enough for two traces to differ when their messages do."""
    return f"{len(frames)} frames {zlib.crc32(_BETWEEN.join(frames)):08x}"
