"""Kinds of random worlds: one in which anything may happen, and some that dwell on one thing.

A theme is what is drawn from, so that a seed and a theme make a world. A world in which everything may go wrong seldom
brings the few things together that show one certain mistake, and little can be demanded of it. Where a theme leaves
something out, more can be asked: that every call succeeds, that a cancel arrives, that nobody waits beside an idle
worker.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs

from brokers.config import BrokerConfig
from chaos.sim.faults import KINDS
from reliable.config import Limits, RetryBudget
from reliable.wire.extension import ServiceOffer

__all__ = ["ANYTHING", "SERVICES", "SHORT_THEMES", "THEMES", "Runs", "Theme", "Who"]

SERVICES: Final = (ServiceOffer(b"echo"), ServiceOffer(b"pure", True), ServiceOffer(b"pay", False))
"""One that leaves it to the caller, one that may be repeated, one that never may."""


class Who(enum.Enum):
    """Whom faults hit."""

    ANYBODY = "anybody"
    BROKERS = "brokers"
    WORKERS = "workers"
    CLIENTS = "clients"


@attrs.frozen(kw_only=True)
class Runs:
    """How handlers behave until everything is healed."""

    quick_s: tuple[float, float] = (0.001, 0.201)
    slow_s: tuple[float, float] = (0.0, 4.0)
    slow_share: float = 0.2
    fail_share: float = 0.1
    stream_share: float = 0.15
    """Give out one to four parts before the reply."""
    news_share: float = 0.3
    """Say once to three times how far they are."""
    obey_share: float = 0.5
    """End when they are told that nobody waits, within a tenth of a second."""
    refuse_share: float = 0.03
    """Fail before the handler is entered."""
    hung_share: float = 0.0
    """Never return; when all is healed their workers are killed and started, as an operator would."""


@attrs.frozen(kw_only=True)
class Theme:
    """What a world is drawn from. Tuples of numbers are drawn from with equal chances, unless said otherwise."""

    name: str
    summary: str

    # --- who is there ---
    brokers: tuple[int, ...] = (1, 2, 2, 3)
    workers: tuple[int, ...] = (1, 2, 3)
    clients: tuple[int, ...] = (1, 2, 3)
    concurrency: tuple[int, ...] = (1, 1, 2, 4)
    everywhere: bool = False
    """Every worker registers with every broker; else some with one."""
    strangers: float = 1.0
    """How likely those are that speak plain MDP, as a share of the usual likelihood."""
    small_share: float = 0.3
    """How often brokers and workers remember next to nothing."""
    broker: BrokerConfig = attrs.field(factory=BrokerConfig)
    limits: Limits = attrs.field(factory=Limits)
    attempts: tuple[int | None, ...] = (2, 5, 5, None)
    patience_s: tuple[float, ...] = (0.5, 1.0, 2.5)
    budgets: tuple[RetryBudget | None, ...] = (None, RetryBudget(), RetryBudget(ratio=0.2, tokens_max=3.0))
    breakers: tuple[int | None, ...] = (None, 2, 5)

    # --- what lies between them ---
    slowest_s: tuple[float, ...] = (0.002, 0.02, 0.1, 0.4)
    """From one room to the other side of the earth: the slower, the more is in flight when something breaks."""
    in_flight_max: tuple[int, ...] = (3, 1000, 1000, 1000)
    lossless: bool = False
    """A cut link loses nothing that was in flight, and both ends learn of it at once."""
    drift: tuple[float, ...] = (0.0, 0.0, 0.002)

    # --- what goes wrong ---
    kinds: tuple[str, ...] = KINDS
    count: tuple[int, ...] = (0, 2, 5, 10, 20)
    who: Who = Who.ANYBODY
    spared: int = 0
    """The first so many workers are left alone."""
    last_s: tuple[float, ...] = (0.01, 0.1, 0.5, 1.0, 2.0, 5.0)
    """Length of a fault, give or take a half."""
    over_s: float = 8.0
    settle_s: float = 15.0
    """More than any backoff, heartbeat timeout, delivery timeout or running handler after the last fault."""

    # --- what is asked for ---
    calls: tuple[int, int] = (5, 30)
    """From, to."""
    services: tuple[str, ...] = ("echo", "pure", "pay")
    timeouts_s: tuple[float | None, ...] = (0.3, 1.0, 3.0, 8.0)
    """None: a call without an end of its own; its attempts still come to theirs."""
    said: tuple[bool | None, ...] = (None, True, False, False)
    """Whether the caller calls it idempotent."""
    manners: tuple[str | None, ...] = (None, None, "one way", "hedged", "watched")
    fail_fast_share: float = 0.15
    cancel_share: float = 0.1
    cancel_within_s: float = 1.0
    runs: Runs = attrs.field(factory=Runs)

    # --- what more may be demanded ---
    sure: bool = False
    """Every call must succeed."""
    calm: bool = False
    """Nothing is broken on purpose: cancels arrive, each call gets one answer, extra attempts are within the budget."""
    blameless: bool = False
    """No worker is silent, so that none may be taken for stuck or gone."""
    starts_beside_idle_s: float | None = None
    """No call may wait for longer while a worker has nothing to do."""
    rests_s: float | None = None
    """In the end there is nothing to do for so long, which is more than anything is remembered for; then no engine
    may keep much."""
    returns_first: bool = False
    """What was handed out before and came back is not overtaken by what came later."""

    long: bool = False
    """A world of hours: run for itself, by soaks, and not where all themes are run."""


ANYTHING: Final = Theme(
    name="anything",
    summary="everything may happen to everybody",
    timeouts_s=(0.3, 0.3, 1.0, 1.0, 3.0, 3.0, 8.0, 8.0, None),
)

_SURE: Final = {
    "sure": True,
    "strangers": 0.0,
    "small_share": 0.0,
    "breakers": (None,),
    "budgets": (None,),
    "attempts": (None,),
    "in_flight_max": (1000,),
    "slowest_s": (0.002, 0.01),
    "fail_fast_share": 0.0,
    "cancel_share": 0.0,
    "manners": (None,),
    "timeouts_s": (20.0,),
    "patience_s": (2.5,),
}
_QUICK: Final = Runs(quick_s=(0.01, 0.3), slow_share=0.0, fail_share=0.0, stream_share=0.0, refuse_share=0.0)

_ALL: Final = (
    ANYTHING,
    Theme(
        name="drain",
        summary="workers are told to stop, with work that they have not begun; another one is always there",
        brokers=(2, 3),
        workers=(3, 4),
        concurrency=(1,),
        everywhere=True,
        kinds=("stop",),
        count=(3, 6),
        who=Who.WORKERS,
        spared=1,
        last_s=(0.2, 0.5),
        calls=(30, 60),
        runs=attrs.evolve(_QUICK, quick_s=(0.2, 0.9)),
        **_SURE,  # type: ignore[arg-type]
    ),
    Theme(
        name="flaps",
        summary="links of workers break and lose nothing, and brokers wait for the workers to be back",
        brokers=(1, 2),
        concurrency=(1, 2, 4),
        everywhere=True,
        lossless=True,
        broker=BrokerConfig(delivery_cap=100, hand_overs_max=100, limbo_s=5.0),
        kinds=("cut",),
        count=(10, 30),
        who=Who.WORKERS,
        calls=(30, 60),
        runs=attrs.evolve(_QUICK, quick_s=(0.05, 1.0)),
        **_SURE,  # type: ignore[arg-type]
    ),
    Theme(
        name="callers' links",
        summary="links of clients break while their calls run; no process and no worker's link is touched",
        kinds=("cut", "cut", "silent cut"),
        brokers=(1,),
        count=(20, 40),
        who=Who.CLIENTS,
        calls=(20, 40),
        runs=attrs.evolve(_QUICK, quick_s=(0.05, 1.5)),
        **{**_SURE, "patience_s": (0.5,)},  # type: ignore[arg-type]
    ),
    Theme(
        name="stuck workers",
        summary="the loops of workers stand still for long while they hold what may run elsewhere",
        workers=(2, 3, 4),
        everywhere=True,
        kinds=("stall",),
        count=(1, 2, 3),
        who=Who.WORKERS,
        spared=1,
        last_s=(16.0,),
        services=("pure",),
        said=(None, True),
        calls=(20, 40),
        settle_s=30.0,
        runs=attrs.evolve(_QUICK, quick_s=(0.2, 1.0)),
        **_SURE,  # type: ignore[arg-type]
    ),
    Theme(
        name="sleepers",
        summary="the loops of all workers stand still for a while, most of the time with nothing in hand",
        workers=(1,),
        everywhere=True,
        kinds=("stall",),
        count=(2, 3),
        who=Who.WORKERS,
        last_s=(10.0,),
        calls=(4, 10),
        over_s=30.0,
        runs=attrs.evolve(_QUICK, quick_s=(0.01, 0.1)),
        **{**_SURE, "timeouts_s": (30.0,)},  # type: ignore[arg-type]
    ),
    Theme(
        name="calm",
        summary="nothing is broken; callers cancel, hedge, run out of time, and want no reply",
        strangers=0.0,
        small_share=0.0,
        slowest_s=(0.002, 0.02),
        in_flight_max=(1000,),
        drift=(0.0,),
        count=(0,),
        cancel_share=0.4,
        calls=(20, 40),
        timeouts_s=(0.3, 1.0, 8.0),
        manners=(None, "one way", "hedged", "watched"),
        patience_s=(30.0,),
        runs=Runs(slow_share=0.4),
        calm=True,
    ),
    Theme(
        name="refusals",
        summary="brokers that can queue next to nothing, and clients that would ask again and again",
        strangers=0.0,
        small_share=0.0,
        workers=(1, 2),
        clients=(1,),
        concurrency=(1,),
        patience_s=(30.0,),
        slowest_s=(0.002,),
        in_flight_max=(1000,),
        drift=(0.0,),
        count=(0,),
        broker=BrokerConfig(queued_per_service_max=1),
        budgets=(RetryBudget(ratio=0.1, tokens_max=2.0),),
        attempts=(5, None),
        breakers=(None,),
        calls=(60, 90),
        manners=(None,),
        cancel_share=0.0,
        runs=Runs(quick_s=(0.2, 0.6), slow_share=0.0, stream_share=0.0),
        calm=True,
    ),
    Theme(
        name="shared slots",
        summary="two brokers give work to workers of one slot, some of it long, and cannot see each other's",
        strangers=0.0,
        small_share=0.0,
        brokers=(2,),
        workers=(2,),
        concurrency=(1,),
        everywhere=True,
        slowest_s=(0.002,),
        in_flight_max=(1000,),
        drift=(0.0,),
        count=(0,),
        calls=(2, 5),
        over_s=3.0,
        settle_s=60.0,
        timeouts_s=(50.0,),
        patience_s=(30.0,),
        manners=(None,),
        cancel_share=0.0,
        fail_fast_share=0.0,
        runs=attrs.evolve(_QUICK, quick_s=(0.1, 0.3), slow_s=(18.0, 20.0), slow_share=0.5),
        calm=True,
        starts_beside_idle_s=7.5,
    ),
    Theme(
        name="crowd",
        summary="more work than workers, which are killed with some of it: it must not wait behind all the rest",
        strangers=0.0,
        small_share=0.0,
        brokers=(1,),
        workers=(2, 3),
        concurrency=(1,),
        slowest_s=(0.002,),
        in_flight_max=(1000,),
        drift=(0.0,),
        kinds=("kill",),
        who=Who.WORKERS,
        spared=1,
        count=(2, 4),
        last_s=(0.1, 0.5),
        calls=(60, 90),
        over_s=5.0,
        settle_s=75.0,
        services=("pure",),
        timeouts_s=(90.0,),
        manners=(None,),
        cancel_share=0.0,
        fail_fast_share=0.0,
        runs=attrs.evolve(_QUICK, quick_s=(0.3, 0.8)),
        returns_first=True,
    ),
    Theme(
        name="slow brokers",
        summary="the loops of brokers stand still: the silence that they find afterwards is their own",
        kinds=("stall",),
        who=Who.BROKERS,
        count=(3, 6),
        last_s=(2.0, 4.0, 5.0),
        strangers=2.0,
        slowest_s=(0.002, 0.02),
        in_flight_max=(1000,),
        drift=(0.0,),
        blameless=True,
    ),
    Theme(
        name="restarts",
        summary="brokers die young, and what they knew with them",
        brokers=(1, 2),
        kinds=("kill", "kill", "stop", "cut", "clog"),
        who=Who.BROKERS,
        count=(4, 8, 16),
        last_s=(0.01, 0.1, 0.5),
        slowest_s=(0.02, 0.1, 0.4),
    ),
    Theme(
        name="streams",
        summary="most replies come in parts, over links that break",
        kinds=("cut", "cut", "kill", "silent cut", "clog", "stall"),
        runs=Runs(stream_share=0.8, quick_s=(0.1, 1.0)),
        count=(5, 10, 20),
        calls=(20, 40),
    ),
    Theme(
        name="orphans",
        summary="clients are killed, frozen and closed while brokers and workers do what they asked for",
        kinds=("kill", "kill", "stop", "freeze", "stall"),
        who=Who.CLIENTS,
        clients=(2, 3, 4),
        count=(4, 8, 16),
        last_s=(0.1, 0.5, 2.0, 5.0),
        calls=(30, 60),
    ),
    Theme(
        name="broken streams",
        summary="workers die after the first part of a reply whose work might otherwise be done again",
        workers=(2, 3),
        everywhere=True,
        strangers=0.0,
        kinds=("kill",),
        who=Who.WORKERS,
        spared=1,
        count=(6, 12),
        last_s=(0.1, 0.5),
        calls=(20, 40),
        services=("pure",),
        said=(None, True),
        timeouts_s=(8.0,),
        manners=(None,),
        cancel_share=0.0,
        runs=Runs(quick_s=(0.5, 2.0), slow_share=0.0, fail_share=0.0, stream_share=1.0),
    ),
    Theme(
        name="breakers",
        summary="one broker that is away so often that its clients' breakers open, and have to close again",
        brokers=(1,),
        strangers=0.0,
        small_share=0.0,
        kinds=("kill", "stall", "freeze"),
        who=Who.BROKERS,
        count=(3, 6),
        last_s=(0.5, 2.0),
        breakers=(1, 2),
        patience_s=(2.5,),
        attempts=(None,),
        calls=(30, 60),
        timeouts_s=(3.0, 8.0),
        runs=Runs(quick_s=(0.1, 1.0), stream_share=0.0),
    ),
    Theme(
        name="strangers",
        summary="a worker and a client of plain MDP are there, and loops stand still",
        strangers=4.0,
        workers=(1, 2),
        kinds=("stall", "stall", "freeze", "clog"),
        who=Who.WORKERS,
        spared=1,
        count=(3, 6),
        last_s=(2.0, 4.0, 5.0),
        services=("echo",),
        runs=Runs(slow_share=0.6, slow_s=(1.0, 4.0)),
    ),
    Theme(
        name="clogs",
        summary="requests come out of the network long after their clients asked what became of them",
        brokers=(2, 3),
        everywhere=True,
        lossless=True,
        strangers=0.0,
        small_share=0.0,
        slowest_s=(0.002, 0.02),
        kinds=("clog",),
        who=Who.CLIENTS,
        count=(5, 10),
        last_s=(2.0, 5.0),
        calls=(30, 60),
        timeouts_s=(3.0, 8.0),
        patience_s=(0.5,),
        said=(False,),
        manners=(None,),
        cancel_share=0.0,
        runs=Runs(slow_share=0.0, stream_share=0.0),
    ),
    Theme(
        name="forgetful",
        summary="brokers that remember three calls, and clients whose links break while they are answered",
        brokers=(1, 2),
        clients=(2, 3),
        strangers=0.0,
        small_share=1.0,
        slowest_s=(0.002, 0.02),
        in_flight_max=(1000,),
        kinds=("cut", "silent cut", "part"),
        who=Who.CLIENTS,
        count=(10, 20),
        last_s=(0.5, 1.0, 2.0),
        calls=(60, 90),
        timeouts_s=(3.0, 8.0),
        patience_s=(0.5,),
        said=(None, False),
        manners=(None,),
        cancel_share=0.0,
        runs=Runs(slow_share=0.05, quick_s=(0.001, 0.05), stream_share=0.0),
    ),
    Theme(
        name="overload",
        summary="far more work than can be done in time",
        brokers=(1, 2),
        workers=(1, 2),
        concurrency=(1,),
        strangers=0.0,
        small_share=0.0,
        calls=(70, 90),
        timeouts_s=(1.0, 3.0),
        services=("echo",),
        manners=(None,),
        cancel_share=0.0,
        count=(0, 3),
        settle_s=60.0,
        runs=attrs.evolve(_QUICK, quick_s=(0.4, 1.0)),
    ),
    Theme(
        name="two roads",
        summary="one worker at two brokers, and clients that go from one to the other while it works",
        brokers=(2,),
        workers=(1,),
        concurrency=(4,),
        strangers=0.0,
        small_share=0.0,
        kinds=("part", "silent cut", "cut"),
        who=Who.CLIENTS,
        count=(5, 10),
        last_s=(2.0, 5.0),
        services=("echo", "pure"),
        timeouts_s=(8.0,),
        patience_s=(0.5,),
        said=(None, True),
        manners=(None,),
        cancel_share=0.0,
        runs=Runs(slow_share=0.7, slow_s=(1.0, 4.0), stream_share=0.0),
    ),
    Theme(
        name="leaving brokers",
        summary="brokers are told to stop and take their time; all that was asked of them is done, here or elsewhere",
        brokers=(2, 3),
        everywhere=True,
        kinds=("leave",),
        who=Who.BROKERS,
        count=(2, 4),
        last_s=(2.0, 4.0),
        calls=(30, 60),
        runs=attrs.evolve(_QUICK, quick_s=(0.05, 0.9)),
        **{**_SURE, "manners": (None, None, "watched")},  # type: ignore[arg-type]
    ),
    Theme(
        name="wrong clocks",
        summary="links that stand for long between processes whose clocks go apart, and calls that have little time",
        brokers=(1, 2),
        workers=(1, 2),
        clients=(1, 2),
        everywhere=True,
        drift=(0.0024,),
        count=(1, 2),
        kinds=("cut",),
        who=Who.WORKERS,
        over_s=1_200.0,
        rests_s=100.0,
        calls=(20, 40),
        runs=_QUICK,
        **{**_SURE, "timeouts_s": (2.0, 4.0)},  # type: ignore[arg-type]
    ),
    Theme(
        name="hung handlers",
        summary="some handlers never return, and their slots are given back after a while",
        workers=(2, 3, 4),
        everywhere=True,
        strangers=0.0,
        broker=BrokerConfig(overdue_slot_s=3.0),
        count=(0, 2, 5),
        calls=(20, 40),
        timeouts_s=(1.0, 3.0),
        runs=Runs(hung_share=0.1),
    ),
    Theme(
        name="quiet hours",
        summary="hours with little to do: clocks go wrong, links grow old, faults are few and some of them long",
        brokers=(1, 1, 2),
        workers=(1, 2),
        clients=(1, 2),
        patience_s=(1.0, 2.5, 30.0),
        drift=(0.0, 0.0005, 0.002),
        count=(0, 3, 6, 12),
        last_s=(0.1, 2.0, 20.0, 120.0, 600.0),
        over_s=14_400.0,
        rests_s=3_700.0,
        settle_s=1_500.0,
        calls=(40, 160),
        timeouts_s=(1.0, 8.0, 60.0, 600.0, 3_600.0),
        cancel_within_s=60.0,
        runs=Runs(slow_share=0.15, slow_s=(1.0, 300.0)),
        long=True,
    ),
)
THEMES: Final = {theme.name: theme for theme in _ALL}
"""By name."""
SHORT_THEMES: Final = {name: theme for name, theme in THEMES.items() if not theme.long}
"""Those whose worlds last less than two minutes."""
