"""Addresses as users write them."""

from __future__ import annotations

import pytest

from reliable.names import LOOKUPS_MAX, Resolver, parse_address, resolve


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555"),
        ("tcp://[::1]:5555", "tcp://[::1]:5555"),
        ("tcp://127.0.0.2:0;127.0.0.3:5555", "tcp://127.0.0.2:0;127.0.0.3:5555"),
    ],
)
def test_numbers_are_handed_on_as_they_are(text: str, target: str) -> None:
    """IPv6 in brackets and libzmq's source address included."""
    address = parse_address(text)
    assert not address.needs_lookup
    assert address.with_host(address.host) == target


def test_names_are_replaced_by_numbers_and_keep_the_rest() -> None:
    """What libzmq gets never makes it resolve anything."""
    address = parse_address("tcp://127.0.0.2:0;broker.example:80")
    assert address.needs_lookup
    assert address.with_host("10.0.0.1") == "tcp://127.0.0.2:0;10.0.0.1:80"
    assert address.with_host("fe80::1") == "tcp://127.0.0.2:0;[fe80::1]:80"


def test_ipc_paths_are_left_alone() -> None:
    """A path may look like anything."""
    address = parse_address("ipc:///run/a:b;c")
    assert (address.text, address.needs_lookup) == ("ipc:///run/a:b;c", False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("localhost:5555", "write tcp://host:port"),
        ("udp://localhost:5555", "write tcp://host:port"),
        ("inproc://x", "write tcp://host:port"),
        ("tcp://localhost", "no port"),
        ("tcp://localhost:0", "no port"),
        ("tcp://localhost:65536", "no port"),
        ("tcp://localhost:http", "no port"),
        ("tcp://localhost:٣", "no port"),
        ("tcp://*:5555", "no host"),
        ("tcp://:5555", "no host"),
        ("tcp://", "names nothing"),
        ("ipc://", "names nothing"),
        ("ipc://a\0b", "names nothing"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, why: str) -> None:
    """When the client is made, not when its first call times out."""
    with pytest.raises(ValueError, match=why):
        parse_address(text)


def test_an_address_that_is_no_text_is_refused() -> None:
    """Say, a list of addresses where several arguments are due."""
    with pytest.raises(TypeError, match="text like"):
        parse_address(["tcp://localhost:5555"])  # type: ignore[arg-type]


def test_localhost_resolves_to_loopback() -> None:
    """The real lookup; needs no network."""
    assert {"127.0.0.1", "::1"} & set(resolve("localhost", 80))


def test_a_name_that_is_no_name_is_an_oserror() -> None:
    """The standard library raises UnicodeError here, which nobody expects from a lookup."""
    with pytest.raises(OSError, match="not a host name"):
        resolve("a" * 300 + ".example", 80)


def test_hanging_lookups_do_not_pile_up_without_limit() -> None:
    """Each costs a thread until its resolver gives up."""
    import threading

    release, woken = threading.Event(), threading.Semaphore(0)

    def ask(host: str, port: int) -> list[str]:
        release.wait(10)
        return ["127.0.0.1"]

    resolver = Resolver(lambda: woken.release(), ask)
    for key in range(LOOKUPS_MAX + 1):
        resolver.start(key, "mute.example", 80)
    assert woken.acquire(timeout=5)
    assert [(answer.key, answer.numbers) for answer in resolver.answers()] == [(LOOKUPS_MAX, ())]
    release.set()
    for _ in range(LOOKUPS_MAX):
        assert woken.acquire(timeout=5)
    assert {answer.key for answer in resolver.answers()} == set(range(LOOKUPS_MAX))


def test_a_mute_name_takes_no_lookup_away_from_others() -> None:
    """Or one dead entry in the list of brokers would, after a while, put all that have names out of reach."""
    import threading

    release, woken = threading.Event(), threading.Semaphore(0)

    def ask(host: str, port: int) -> list[str]:
        if host == "mute.example":
            release.wait(10)
        return ["127.0.0.1"]

    resolver = Resolver(lambda: woken.release(), ask)
    for key in range(LOOKUPS_MAX):
        resolver.start(key, "mute.example", 80)
    for key in range(10, 20):
        resolver.start(key, "good.example", 80)
        assert woken.acquire(timeout=5)
        assert [(answer.key, answer.numbers) for answer in resolver.answers()] == [(key, ("127.0.0.1",))]
    release.set()
    for _ in range(LOOKUPS_MAX):
        assert woken.acquire(timeout=5)
