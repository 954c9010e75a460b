"""Links that live for a day between clocks that nobody disciplines: deadlines are as good as in the first minute.

The clocks here go 200 ppm wrong, each in its own way, more than bad quartz does; in a day that is 17 s each.
"""

from __future__ import annotations

import attrs
import pytest

from brokers.config import BrokerConfig
from chaos.history import Call, End
from chaos.sim.actors import Job, Run
from chaos.sim.network import NetworkModel
from chaos.sim.world import World
from reliable.config import ClientConfig, Heartbeat, TransportConfig, WorkerConfig
from reliable.errors import Outcome

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
WRONG = 200e-6
FIXED = NetworkModel(delay_s=(0.001, 0.001), notice_s=(0.001, 0.001))
SELDOM = Heartbeat(interval_s=20.0, timeout_s=60.0)
"""A day has enough seconds."""
NEVER = TransportConfig(time_check_s=None)
"""As it was when the hello was all that a link knew of time."""


class LongWorld(World):
    """A broker whose clock goes wrong by so much, and a client and a worker who go wrong the other way."""

    def __init__(
        self, wrong: float, *, transport: TransportConfig | None = None, broker: BrokerConfig | None = None
    ) -> None:
        self.rates = {"b1": 1.0 + wrong, "c1": 1.0 - wrong, "w1": 1.0 - wrong}
        super().__init__(1, model=FIXED, keep_trace=False)
        transport = transport or TransportConfig()
        self.broker("b1", attrs.evolve(broker or BrokerConfig(), heartbeat=SELDOM))
        self.takes_s = 0.01
        self.lefts_s: list[float] = []
        """How much time each handler was told that it has."""
        self.w1 = self.worker("w1", self._handler, config=WorkerConfig(heartbeat=SELDOM, transport=transport))
        self.c1 = self.client("c1", config=ClientConfig(transport=transport))
        self.run(1.0)
        self.made = 0

    def _rate_of(self, name: str) -> float:
        return self.rates[name]

    def _handler(self, job: Job) -> Run:
        assert job.start.deadline is not None
        self.lefts_s.append(job.start.deadline - self.w1.now())
        return Run(self.takes_s)

    def call(self, timeout_s: float) -> Call:
        """A call that is not idempotent, to its end."""
        self.made += 1
        call = self.c1.submit(b"k%05d" % self.made, "echo", timeout_s=timeout_s, idempotent=False)
        assert self.ended(call, within_s=timeout_s + 1.0)
        return call


def told(call: Call) -> tuple[End, Outcome]:
    """What the caller learned."""
    assert call.ending is not None
    return call.ending.end, call.ending.outcome


OK = (End.OK, Outcome.EXECUTED)
UNRUN = (End.FAILED, Outcome.NOT_EXECUTED)


@pytest.mark.parametrize("wrong", [WRONG, -WRONG])
def test_a_call_with_a_short_timeout_succeeds_on_a_link_of_any_age(wrong: float) -> None:
    """Half an hour would be enough to make it fail at once."""
    world = LongWorld(wrong)
    for _ in range(24):
        assert told(world.call(0.3)) == OK
        assert world.lefts_s[-1] == pytest.approx(0.3 - 0.075, abs=0.06)
        world.run(HOUR_S)
    assert told(world.call(0.3)) == OK
    assert world.problems() == []
    assert world.c1.engine.counters.links_opened == 1
    assert world.w1.engine is not None and world.w1.engine.counters.registrations == 1


@pytest.mark.parametrize("wrong", [WRONG, -WRONG])
def test_after_a_day_the_broker_still_says_in_time_that_a_call_did_not_run(wrong: float) -> None:
    """If its deadlines are late, the caller hears nothing and can only guess."""
    world = LongWorld(wrong)
    world.call(5.0)
    world.run(DAY_S)
    world.takes_s = 10.0
    world.c1.submit(b"hog", "echo", timeout_s=20.0)
    world.run(0.1)
    assert told(world.call(1.0)) == UNRUN
    world.run(20.0)
    assert world.problems() == []


@pytest.mark.parametrize("wrong", [WRONG, -WRONG])
def test_by_the_hello_alone_calls_fail_after_hours_on_one_link(wrong: float) -> None:
    """Shows that the tests above show something: deadlines are seconds early, or seconds late."""
    world = LongWorld(wrong, transport=NEVER)
    assert told(world.call(0.3)) == OK
    world.run(4 * HOUR_S)
    ends = told(world.call(0.3))
    world.takes_s = 10.0
    world.c1.submit(b"hog", "echo", timeout_s=60.0)
    world.run(0.1)
    unrun = told(world.call(1.0))
    assert (ends == OK) is (wrong < 0)
    assert (unrun == UNRUN) is (wrong > 0)


FORGETFUL = BrokerConfig(finished_calls_max=3)


@pytest.mark.parametrize(("transport", "refused"), [(None, 0), (NEVER, 1)])
def test_a_broker_that_soon_forgets_takes_new_calls_over_a_link_of_any_age(
    transport: TransportConfig | None, refused: int
) -> None:
    """What errs to the past by a share of the link's age ends at "you may have asked that before"."""
    world = LongWorld(0.0, transport=transport, broker=FORGETFUL)
    for _ in range(4):
        assert told(world.call(60.0)) == OK
    world.run(4 * HOUR_S)
    ends = []
    for _ in range(8):
        world.run(10.0)
        ends.append(told(world.call(60.0)))
    assert (ends.count(OK) < len(ends)) is bool(refused)
    assert set(ends) <= {OK, (End.UNKNOWN, Outcome.UNKNOWN)}
    assert world.problems() == []


@pytest.mark.parametrize("wrong", [WRONG, -WRONG])
@pytest.mark.parametrize("cut_after_s", [0.0015, 0.0115])
def test_a_call_that_was_forgotten_is_not_run_again_over_a_link_of_any_age(wrong: float, cut_after_s: float) -> None:
    """Its reply is lost, the broker forgets that it ran, and the client asks again: the age of the call decides."""
    world = LongWorld(wrong, broker=FORGETFUL)
    world.rates["c2"] = 1.0
    other = world.client("c2")
    world.call(5.0)
    world.run(DAY_S)
    call = world.c1.submit(b"lost", "echo", timeout_s=30.0, idempotent=False)
    world.run(cut_after_s)
    world.cut("c1", "b1", silent=True)
    for number in range(10):
        assert world.ended(other.submit(b"other%d" % number, "echo", timeout_s=5.0))
    assert world.ended(call, within_s=40.0)
    forgotten = world.broker_engine("b1").counters.calls_forgotten
    assert forgotten > 3
    assert len(world.history.runs_of(b"lost")) <= 1
    assert world.problems() == []
