"""Which broker of the list comes next."""

from __future__ import annotations

import math

import attrs
import pytest

from reliable.config import Backoff, BreakerPolicy, ClientConfig
from reliable.engine.brokers import FOREIGN_S, Brokers

LIFE = b"life-one"
CONFIG = ClientConfig(
    reconnect=Backoff(initial_s=1.0, delay_s_max=8.0),
    breaker=BreakerPolicy(failures=2, pause=Backoff(initial_s=2.0)),
    stagger_s=0.25,
    return_after_s=30.0,
)


def make(*addresses: str) -> Brokers:
    return Brokers(addresses or ("a", "b", "c"), CONFIG)


def connect(brokers: Brokers, address: str, life: bytes = LIFE, now: float = 0.0) -> None:
    brokers[address].link = 1
    brokers.found(brokers[address], life, now)


@pytest.mark.parametrize("addresses", [(), ("a", "b", "a")])
def test_a_list_names_brokers_and_each_once(addresses: tuple[str, ...]) -> None:
    """Two entries for one address would be two links to it."""
    with pytest.raises(ValueError, match="only once"):
        Brokers(addresses, CONFIG)


def test_they_are_tried_in_the_order_of_the_list() -> None:
    """The user's order is the user's preference."""
    brokers = make()
    tried = []
    while (broker := brokers.next_to_try(0.0)) is not None:
        tried.append(broker.address)
        brokers.failed(broker, "refused", 0.0, 0.5)
    assert tried == ["a", "b", "c"]
    assert brokers.next_try_at(0.0) == 0.5


def test_a_link_in_progress_is_waited_for_only_if_its_broker_comes_first() -> None:
    """A call that must ask the lost broker again does not hold up those that may go elsewhere."""
    brokers = make()
    brokers["a"].link, brokers["a"].opened_at = 1, 0.0
    assert brokers.next_to_try(0.0) is None
    brokers["a"].link = None
    brokers["b"].link, brokers["b"].opened_at = 2, 0.0
    assert brokers.next_to_try(0.0) is brokers["a"]
    brokers.failed(brokers["a"], "refused", 0.0, 0.5)
    assert brokers.next_to_try(0.0) is None, "the link to the next one is on its way"


def test_a_failed_broker_waits_longer_each_time() -> None:
    """A list of dead brokers must not cost more than a few tries per second."""
    brokers = make("a")
    waits = []
    for _ in range(6):
        brokers.failed(brokers["a"], "refused", 0.0, 0.5)
        waits.append(brokers.next_try_at(0.0))
    assert waits == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_one_that_worked_may_be_tried_again_at_once() -> None:
    """A broken link says nothing about the broker."""
    brokers = make("a")
    connect(brokers, "a")
    brokers.failed(brokers["a"], "lost", 5.0, 0.5)
    assert brokers.next_try_at(0.0) == 5.0
    connect(brokers, "a")
    brokers.failed(brokers["a"], "lost", 5.0, 0.5)
    assert brokers.next_try_at(0.0) == 6.0, "it did nothing in between"
    connect(brokers, "a")
    brokers["a"].failures = 0  # it said something about a call
    brokers.failed(brokers["a"], "lost", 7.0, 0.5)
    assert brokers.next_try_at(0.0) == 7.0


def test_the_one_that_answers_is_kept() -> None:
    """Going back and forth would cost calls at each turn."""
    brokers = make()
    brokers.failed(brokers["a"], "refused", 0.0, 0.5)
    connect(brokers, "b")
    connect(brokers, "a")
    ready = brokers.ready(1.0)
    assert ready is not None and ready.address == "b"
    brokers.failed(ready, "lost", 1.0, 0.5)
    ready = brokers.ready(1.0)
    assert ready is not None and ready.address == "a", "one that is ready goes before one that is next"


def test_others_are_those_that_did_not_refuse_and_are_not_in_trouble() -> None:
    """Waiting for a broker that is down is no way round one that is full."""
    brokers = make()
    connect(brokers, "a")
    brokers.failed(brokers["b"], "refused", 0.0, 0.5)
    other = brokers.other({"a"}, 0.0)
    assert other is not None and other.address == "c"
    brokers.foreign(brokers["c"], "501", 0.0)
    assert brokers.other({"a"}, 0.0) is None
    connect(brokers, "b")
    other = brokers.other({"a"}, 0.0)
    assert other is not None and other.address == "b"


def test_a_foreign_broker_is_left_alone_for_a_while() -> None:
    """It will not learn the extension within seconds, but may be replaced within minutes."""
    brokers = make("a")
    brokers.foreign(brokers["a"], "501", 10.0)
    assert brokers.all_foreign(10.0 + FOREIGN_S - 0.1)
    assert brokers.next_to_try(10.0 + FOREIGN_S - 0.1) is None
    assert not brokers.all_foreign(10.0 + FOREIGN_S)
    assert brokers.next_to_try(10.0 + FOREIGN_S) is brokers["a"]


def test_another_life_is_noticed() -> None:
    """It decides what becomes of calls that may have run."""
    brokers = make("a")
    assert not brokers.found(brokers["a"], LIFE, 0.0)
    assert not brokers.found(brokers["a"], LIFE, 0.0)
    assert brokers.found(brokers["a"], b"life-two", 0.0)


def test_the_description_names_the_trouble_of_each() -> None:
    """It ends up in front of a person who wonders why nothing works."""
    brokers = make()
    connect(brokers, "a")
    brokers.failed(brokers["b"], "refused", 0.0, 0.5)
    brokers.failed(brokers["b"], "refused", 0.0, 0.5)
    assert brokers.describe() == "a: ready; b: refused (2 times); c: not tried"
    brokers["c"].link = 2
    assert brokers["c"].describe() == "c: connecting"


def test_one_that_is_slow_to_come_up_holds_up_the_next_only_for_the_stagger() -> None:
    """A name that never resolves must not cost the calls their time."""
    brokers = make()
    brokers["a"].link, brokers["a"].opened_at = 1, 10.0
    assert brokers.next_to_try(10.2) is None
    assert brokers.next_try_at(10.2) == 10.25
    assert brokers.next_to_try(10.25) is brokers["b"]


def test_the_earlier_one_is_preferred_if_it_was_only_slower() -> None:
    """It was tried beside the next one because of its slowness, not because of a failure."""
    brokers = make()
    brokers["a"].link = 1
    connect(brokers, "b")
    assert brokers.preferred is brokers["b"]
    connect(brokers, "a")
    assert brokers.preferred is brokers["a"] and brokers.return_at == math.inf


def test_after_a_failover_an_earlier_broker_is_looked_for_once_in_a_while() -> None:
    """The order of the list is a preference; a blip of an hour ago must not decide for ever."""
    brokers = make()
    connect(brokers, "a")
    brokers.failed(brokers["a"], "lost", 5.0, 0.5)
    connect(brokers, "b", now=6.0)
    assert brokers.return_at == 35.0, "it moved on when the first was lost"
    assert brokers.return_now(35.0) is brokers["a"]
    assert brokers.return_at == 65.0
    brokers["a"].link = 3
    brokers.failed(brokers["a"], "refused", 35.1, 0.5)
    assert brokers.preferred is brokers["b"], "it is still away"
    assert brokers.return_now(65.0) is brokers["a"]
    connect(brokers, "a", now=65.2)
    assert brokers.preferred is brokers["a"] and brokers.return_at == math.inf


def test_an_earlier_broker_that_is_ready_already_is_returned_to_at_its_time() -> None:
    """Some call may have needed a link to it meanwhile."""
    brokers = make()
    brokers.failed(brokers["a"], "refused", 0.0, 0.5)
    connect(brokers, "b")
    connect(brokers, "a", now=1.0)
    assert brokers.preferred is brokers["b"]
    assert brokers.return_now(30.0) is None
    assert brokers.preferred is brokers["a"]


def test_nobody_returns_who_has_not_left_or_has_nowhere_to_stay() -> None:
    """The looking costs a connection."""
    brokers = make()
    connect(brokers, "a")
    assert brokers.return_at == math.inf and brokers.return_now(1000.0) is None
    brokers.failed(brokers["a"], "lost", 5.0, 0.5)
    assert brokers.return_now(1000.0) is None, "none is ready, so all are tried anyway"
    stay = Brokers(("a", "b"), attrs.evolve(CONFIG, return_after_s=None))
    stay.failed(stay["a"], "refused", 0.0, 0.5)
    connect(stay, "b")
    connect(stay, "a")
    assert stay.preferred is stay["b"] and stay.return_at == math.inf


def test_an_open_breaker_turns_calls_to_another_broker_and_nobody_waits_for_its_link() -> None:
    """Sending ever more calls to a broker that fails them all helps neither."""
    brokers = make("a", "b")
    connect(brokers, "a")
    assert [brokers["a"].breaker.failed(1.0, 0.0) for _ in range(2)] == [False, True]
    assert brokers.ready(1.0) is None
    assert brokers.next_to_try(1.0) is brokers["b"]
    assert "breaker is open after 2 failures" in brokers.describe()
    brokers["b"].link, brokers["b"].opened_at = 2, 1.0
    assert brokers.next_to_try(1.1) is None
    assert brokers.next_try_at(1.1) == 1.25
    brokers["b"].opened_at = 0.0
    assert brokers.next_try_at(1.1) == 2.0, "the end of the pause"
    assert brokers.ready(2.0) is brokers["a"]
    brokers["a"].breaker.sent(2.0)
    assert brokers.ready(2.0) is None


def test_another_life_closes_the_breaker_of_the_one_before() -> None:
    """A restart is what most troubles are cured with."""
    brokers = make("a")
    connect(brokers, "a")
    brokers["a"].breaker.failed(1.0, 0.0)
    brokers["a"].breaker.failed(1.0, 0.0)
    connect(brokers, "a", b"life-two", now=1.1)
    assert brokers.ready(1.1) is brokers["a"]
