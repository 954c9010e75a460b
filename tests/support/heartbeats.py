"""Heartbeats under load: very many workers, a broker that is kept busy, and who heard whom how regularly."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from tests.support.counting_broker import BrokerFigures, BrokerSettings, CountingBroker, Gap
from tests.support.farm import Farm, FarmFigures, FarmSettings, service_of
from tests.support.mdp_load import LoadFigures, LoadOrder, MdpLoad
from tests.support.ports import free_endpoint
from tests.support.starvation import starved_s

__all__ = ["Outcome", "Run", "soak"]

_FARMS: Final = 3
"""Processes for the many; the fast one has a process of its own."""


@attrs.frozen(kw_only=True)
class Run:
    """What to do."""

    seconds: float
    workers: int
    """That beat at the interval; one more beats faster."""
    interval_s: float = 1.0
    fast_s: float = 0.02
    """Interval of the one worker that beats much faster."""
    load: float = 0.6
    """Share of what the broker can do."""
    flood: int = 2_000
    """Requests that come all together, again and again."""
    flood_every_s: float = 2.0
    measure_s: float = 1.5
    """How long to find out what the broker can do."""
    patience_s: float = 5.0
    """For answers that are still under way at the end."""
    one_message_per_wake_up: bool = False


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of it."""

    can_do: LoadFigures
    """At full load."""
    load: LoadFigures
    heartbeats: int
    """Heard by the broker."""
    gaps: list[Gap]
    """Longer than two intervals, at the broker."""
    missed: list[Gap]
    """Those of them that neither the sender nor a machine without free processors explains."""
    longest: dict[float, float]
    """The longest silence of a worker in its intervals, by interval."""
    broker_gaps: int
    """The same at the workers: silences of the broker of more than two intervals."""
    broker_longest: float
    stuck: int
    gone: int
    busy: float
    """Share of one processor that the broker took."""

    def __str__(self) -> str:
        longest = ", ".join(f"{silent:.2f} x {interval_s:g} s" for interval_s, silent in sorted(self.longest.items()))
        return (
            f"{self.load.per_s:.0f} calls/s of {self.can_do.per_s:.0f}, {self.load.answered} of {self.load.sent} "
            f"answered, broker at {self.busy * 100:.0f} % of a processor; {self.heartbeats} heartbeats heard, "
            f"{len(self.missed)} missed ({len(self.gaps)} gaps above two intervals); longest silences: {longest}; of "
            f"the broker: {self.broker_longest:.2f} intervals, {self.broker_gaps} gaps; stuck {self.stuck}, "
            f"gone {self.gone}"
        )


def soak(run: Run) -> Outcome:
    """Do it, in processes of their own."""
    with contextlib.ExitStack() as processes:
        endpoint = free_endpoint()
        broker = CountingBroker(
            BrokerSettings(
                endpoint,
                run.interval_s,
                # The load's own worker speaks when it likes.
                {service_of(0): run.fast_s, "load": 1e9},
                run.one_message_per_wake_up,
            )
        )
        processes.callback(broker.close)
        farms = list(_farms(run, endpoint))
        for farm in farms:
            processes.callback(farm.close)
        for farm in farms:
            farm.wait_ready()
        load = MdpLoad(endpoint)
        processes.callback(load.close)
        load.begin(LoadOrder(run.measure_s, at_once=400, patience_s=run.patience_s))
        can_do = load.end()
        time.sleep(2 * run.interval_s)
        cpu_s = broker.figures().cpu_s
        load.begin(
            LoadOrder(
                run.seconds,
                rate=run.load * can_do.per_s,
                flood=run.flood,
                flood_every_s=run.flood_every_s,
                patience_s=run.patience_s,
            )
        )
        made = load.end()
        heard, said = broker.figures(), [farm.figures() for farm in farms]
    missed = [gap for gap in heard.gaps if not _explained(gap, heard, said)]
    return Outcome(
        can_do=can_do,
        load=made,
        heartbeats=heard.messages - made.answered,
        gaps=heard.gaps,
        missed=missed,
        longest={interval_s: silent for interval_s, silent in heard.longest.items() if interval_s < 1e9},
        broker_gaps=sum(len(figures.broker_gaps) for figures in said),
        broker_longest=max(figures.broker_longest for figures in said),
        stuck=heard.stuck,
        gone=heard.gone,
        busy=(heard.cpu_s - cpu_s) / made.seconds,
    )


def _farms(run: Run, endpoint: str) -> Iterator[Farm]:
    yield Farm(FarmSettings(endpoint, 0, 1, run.fast_s, run.interval_s))
    share = run.workers // _FARMS
    for index in range(_FARMS if run.workers else 0):
        engines = share + (run.workers % _FARMS if index == _FARMS - 1 else 0)
        yield Farm(FarmSettings(endpoint, 1 + index * share, engines, run.interval_s, run.interval_s))


def _explained(gap: Gap, heard: BrokerFigures, said: Sequence[FarmFigures]) -> bool:
    """Whether the sender paused by itself, or processors were wanting for as long as the gap is too long."""
    number = int(gap.service.rpartition("-")[2])
    for figures in said:
        for paused, begin, end in figures.slow_beats:
            if paused == number and begin < gap.end and end > gap.begin - gap.interval_s:
                return True
    waited_s = starved_s(heard.starved, gap.begin, gap.end)
    waited_s += max(starved_s(figures.starved, gap.begin, gap.end) for figures in said)
    # An interval is when the next one was sent; what comes on top of it must be explained.
    return waited_s >= gap.end - gap.begin - 1.5 * gap.interval_s
