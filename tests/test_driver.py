"""The order in which a shell feeds an engine and carries out what it says."""

from __future__ import annotations

from typing import Any, cast

from reliable.driver import Driver
from reliable.protocol.events import CloseLink, OpenLink, Received, Send, Unsent
from reliable.transport import LinkEvent, LinkTable


class Engine:
    """Writes down what it hears; answers from a script."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.out: list[object] = []
        self.answers: dict[type, list[object]] = {}
        self.due: float | None = None

    def handle(self, event: object, now: float) -> None:
        self.heard.append(event)
        self.out += self.answers.pop(type(event), [])

    def timers(self, now: float) -> None:
        self.heard.append("timers")
        self.due = None

    def next_deadline(self) -> float | None:
        return self.due

    def effects(self) -> list[object]:
        out, self.out = self.out, []
        return out

    def snapshot(self) -> object:
        return None


class Table:
    """Links that write down what they are told, and give out what a test puts in."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.arrived: list[list[object]] = []
        self.takes = True
        self.due: float | None = None

    @property
    def dirty(self) -> bool:
        return bool(self.arrived)

    def drain(self, now: float) -> list[object]:
        return self.arrived.pop(0) if self.arrived else []

    def open(self, link: int, address: str, now: float) -> None:
        self.done.append(("open", link, address))

    def close(self, link: int, *, linger: bool) -> None:
        self.done.append(("close", link, linger))

    def send(self, link: int, frames: list[bytes]) -> bool:
        self.done.append(("send", link, frames))
        return self.takes

    def next_deadline(self) -> float | None:
        return self.due


class Bench:
    """A driver between the two, at a time that stands still."""

    def __init__(self) -> None:
        self.engine, self.table, self.performed = Engine(), Table(), list[object]()
        self.now = 100.0
        self.driver: Driver[Any, Any] = Driver(
            self.engine, cast(LinkTable, self.table), self.performed.append, lambda: self.now
        )


def test_effects_are_carried_out_in_order_and_the_rest_is_the_shells() -> None:
    """Links belong to the table; everything else to whoever owns the driver."""
    bench = Bench()
    bench.engine.answers[str] = [OpenLink(1, "tcp://a:1"), "mine", Send(1, [b"x"]), CloseLink(1, linger=True)]
    bench.driver.handle("go")
    assert bench.table.done == [("open", 1, "tcp://a:1"), ("send", 1, [b"x"]), ("close", 1, True)]
    assert bench.performed == ["mine"]


def test_what_an_engine_wants_from_the_start_is_carried_out_by_the_first_turn() -> None:
    """A worker opens its links before anything has happened."""
    bench = Bench()
    bench.engine.out = [OpenLink(1, "tcp://a:1")]
    bench.driver.turn()
    assert bench.table.done == [("open", 1, "tcp://a:1")]


def test_what_a_socket_does_not_take_is_told_at_once_with_its_tag() -> None:
    """It is proven not to have been sent, which is worth a lot to a call that must not run twice."""
    bench = Bench()
    bench.table.takes = False
    bench.engine.answers[str] = [Send(1, [b"x"], "tag")]
    bench.engine.answers[Unsent] = ["given up"]
    bench.driver.handle("go")
    assert bench.engine.heard == ["go", Unsent(1, "tag")]
    assert bench.performed == ["given up"]


def test_what_arrived_goes_before_what_is_due_and_before_a_new_event() -> None:
    """A reply that is here is no timeout, and a link that broke is not sent to."""
    bench = Bench()
    first = Received(1, [b"reply"])
    bench.table.arrived = [[first]]
    bench.engine.due = 99.0
    bench.driver.wait_s()
    bench.driver.handle("go")
    assert bench.engine.heard == [first, "timers", "go"]


def test_a_turn_goes_on_until_nothing_is_left_to_read() -> None:
    """A send may have consumed the edge of what arrived meanwhile: nobody would be woken for it."""
    bench = Bench()
    arrived: list[LinkEvent] = [Received(1, [b"%d" % number]) for number in range(3)]
    bench.table.arrived = [[event] for event in arrived]
    bench.driver.turn()
    assert bench.engine.heard == arrived


def test_timers_run_only_when_they_are_due() -> None:
    """Otherwise each message would pay for them."""
    bench = Bench()
    bench.engine.due = 100.5
    assert bench.driver.wait_s() == 0.5
    bench.driver.turn()
    assert bench.engine.heard == []
    bench.now = 100.5
    bench.driver.turn()
    assert bench.engine.heard == ["timers"]


def test_the_wait_ends_with_the_earlier_of_engine_and_links() -> None:
    """A link that is being opened has a time limit of its own; a wait is never negative, which would mean for ever."""
    bench = Bench()
    assert bench.driver.wait_s() is None
    bench.engine.due = 103.0
    assert bench.driver.wait_s() == 3.0
    bench.table.due = 101.0
    assert bench.driver.wait_s() == 1.0
    bench.now = 200.0
    assert bench.driver.wait_s() == 0.0
