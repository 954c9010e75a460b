"""Which server a plain client turns to next, and which it leaves alone."""

from __future__ import annotations

import pytest

from reliable.config import Backoff
from reliable.engine.plain_links import Link, Server, Servers

BACKOFF = Backoff(initial_s=1.0, factor=2.0, delay_s_max=3.0)


def servers(*names: str) -> tuple[Servers, list[Server]]:
    made = Servers(names, BACKOFF)
    return made, list(made)


def link(server: Server, number: int = 1, begun: float = 0.0, *, ready: bool = False) -> Link:
    """A link in the tables of its server."""
    made = Link(number, server, b"", begun, ready, ready)
    server.links[number] = made
    if not ready:
        server.opening[number] = made
    return made


def order(made: Servers) -> str:
    return "".join(server.address for server in made.in_order)


def test_the_order_begins_with_the_preferred_server_and_goes_round() -> None:
    """The list is a ring: behind the last comes the first."""
    made, (a, b, c) = servers("a", "b", "c")
    assert order(made) == "abc"
    made.passed_over(a)
    assert order(made) == "bca"
    made.passed_over(a)
    assert order(made) == "bca", "only the preferred one can be passed over"
    made.passed_over(b)
    made.passed_over(c)
    assert order(made) == "abc"


def test_the_first_to_come_up_is_preferred_if_nobody_else_is_up() -> None:
    """And it stays so when the others follow."""
    made, (_, b, c) = servers("a", "b", "c")
    link(b, ready=True)
    made.came_up(b)
    assert order(made) == "bca"
    link(c, ready=True)
    made.came_up(c)
    assert order(made) == "bca"


@pytest.mark.parametrize(("u", "waits"), [(0.5, [0.5, 1.0, 1.5, 1.5]), (0.0, [0.01] * 4)])
def test_a_server_that_fails_is_left_alone_for_longer_each_time(u: float, waits: list[float]) -> None:
    """Up to a limit, and never for nothing."""
    made, (a, _) = servers("a", "b")
    now = 100.0
    for count, wait_s in enumerate(waits, 1):
        made.failed(a, "refused", now, u)
        assert [a.failures, a.not_before] == pytest.approx([count, now + wait_s])
        now = a.not_before
    assert order(made) == "ba"
    assert a.describe() == "a: refused (4 times)"


def test_what_fails_within_the_pause_of_a_failure_is_the_same_failure() -> None:
    """Links that were opened together are refused together."""
    made, (a,) = servers("a")
    made.failed(a, "refused", 100.0, 0.5)
    made.failed(a, "refused", 100.4, 0.5)
    assert (a.failures, a.not_before) == (1, 100.5)


def test_a_server_is_worth_waiting_for_until_it_is_slow() -> None:
    """Coming up, or free to be tried, with room for a link."""
    made, (a,) = servers("a")
    assert a.worth_waiting(0.25, 1, 100.0)
    first = link(a, begun=100.0)
    link(a, 2, 100.2)
    assert a.worth_waiting(0.25, 1, 100.2) and not a.worth_waiting(0.25, 1, 100.25)
    assert a.slow_at(0.25) == 100.25, "the oldest one counts"
    del a.opening[1], a.opening[2]
    first.ready = True
    assert a.up and not a.worth_waiting(0.25, 2, 100.0) and a.worth_waiting(0.25, 3, 100.0)
    made.failed(a, "lost", 100.0, 0.5)
    assert not a.worth_waiting(0.25, 3, 100.4) and a.worth_waiting(0.25, 3, 100.5)


def test_each_state_has_its_words() -> None:
    """For the error of a call that reached nobody, and for a snapshot."""
    made, (a, b, c, d) = servers("a", "b", "c", "d")
    link(b)
    link(c, ready=True)
    made.failed(d, "refused", 0.0, 0.0)
    assert made.describe() == "a: not tried; b: connecting; c: all 1 links are in use; d: refused"
    link(d)
    assert d.describe() == "d: connecting; before that: refused"
    assert [server.view().state for server in (a, b, c, d)] == ["unknown", "unknown", "usable", "unreachable"]
    assert [only.view().state for only in (*b.links.values(), *c.links.values())] == ["opening", "ready"]


@pytest.mark.parametrize("names", [(), ("a", "a")])
def test_a_list_without_servers_or_with_one_twice_is_refused(names: tuple[str, ...]) -> None:
    """A second entry would double the tries at one server."""
    with pytest.raises(ValueError, match="at least one server"):
        Servers(names, BACKOFF)
