"""Which broker of the list comes next."""

from __future__ import annotations

import math

import pytest

from reliable.config import Backoff
from reliable.engine.brokers import FOREIGN_S, Brokers

LIFE = b"life-one"


def make(*addresses: str) -> Brokers:
    return Brokers(addresses or ("a", "b", "c"), Backoff(initial_s=1.0, delay_s_max=8.0))


def connect(brokers: Brokers, address: str, life: bytes = LIFE) -> None:
    brokers[address].link = 1
    brokers.found(brokers[address], life)


@pytest.mark.parametrize("addresses", [(), ("a", "b", "a")])
def test_a_list_names_brokers_and_each_once(addresses: tuple[str, ...]) -> None:
    """Two entries for one address would be two links to it."""
    with pytest.raises(ValueError, match="only once"):
        Brokers(addresses, Backoff())


def test_they_are_tried_in_the_order_of_the_list() -> None:
    """The user's order is the user's preference."""
    brokers = make()
    tried = []
    while (broker := brokers.next_to_try(0.0)) is not None:
        tried.append(broker.address)
        brokers.failed(broker, "refused", 0.0, 0.5)
    assert tried == ["a", "b", "c"]
    assert brokers.next_try_at() == 0.5


def test_a_link_in_progress_is_waited_for_only_if_its_broker_comes_first() -> None:
    """A call that must ask the lost broker again does not hold up those that may go elsewhere."""
    brokers = make()
    brokers["a"].link = 1
    assert brokers.next_to_try(0.0) is None
    brokers["a"].link = None
    brokers["b"].link = 2
    assert brokers.next_to_try(0.0) is brokers["a"]
    brokers.failed(brokers["a"], "refused", 0.0, 0.5)
    assert brokers.next_to_try(0.0) is None, "the link to the next one is on its way"


def test_a_failed_broker_waits_longer_each_time() -> None:
    """A list of dead brokers must not cost more than a few tries per second."""
    brokers = make("a")
    waits = []
    for _ in range(6):
        brokers.failed(brokers["a"], "refused", 0.0, 0.5)
        waits.append(brokers.next_try_at())
    assert waits == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_one_that_worked_may_be_tried_again_at_once() -> None:
    """A broken link says nothing about the broker."""
    brokers = make("a")
    connect(brokers, "a")
    brokers.failed(brokers["a"], "lost", 5.0, 0.5)
    assert brokers.next_try_at() == 5.0
    connect(brokers, "a")
    brokers.failed(brokers["a"], "lost", 5.0, 0.5)
    assert brokers.next_try_at() == 6.0, "it did nothing in between"
    connect(brokers, "a")
    brokers.answered(brokers["a"])
    brokers.failed(brokers["a"], "lost", 7.0, 0.5)
    assert brokers.next_try_at() == 7.0


def test_the_one_that_answers_is_kept() -> None:
    """Going back and forth would cost calls at each turn."""
    brokers = make()
    brokers.failed(brokers["a"], "refused", 0.0, 0.5)
    connect(brokers, "b")
    connect(brokers, "a")
    ready = brokers.ready()
    assert ready is not None and ready.address == "b"
    brokers.failed(ready, "lost", 1.0, 0.5)
    ready = brokers.ready()
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
    assert not brokers.found(brokers["a"], LIFE)
    assert not brokers.found(brokers["a"], LIFE)
    assert brokers.found(brokers["a"], b"life-two")


def test_the_description_names_the_trouble_of_each() -> None:
    """It ends up in front of a person who wonders why nothing works."""
    brokers = make()
    connect(brokers, "a")
    brokers.failed(brokers["b"], "refused", 0.0, 0.5)
    brokers.failed(brokers["b"], "refused", 0.0, 0.5)
    assert brokers.describe() == "a: ready; b: refused (2 times); c: not tried"
    brokers["c"].link = 2
    assert brokers["c"].describe() == "c: connecting"
    assert brokers.next_try_at() < math.inf
