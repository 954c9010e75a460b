"""Options are checked before anything is opened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliable.cli.params import is_loopback, url_problem


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:5555",
        "udp://127.0.0.1:5555",
        "inproc://x",
        "tcp://",
        "tcp://host",
        "tcp://:5555",
        "tcp://host:",
        "tcp://host:port",
        "tcp://host:0",
        "tcp://host:65536",
        "tcp://host:-1",
        "tcp://host:" + "9" * 5000,
        "tcp://host:５",
        "tcp://*:5555",
        "tcp://host:5555/path",
        "tcp://ho st:5555",
        "ipc://",
        "ipc://" + "x" * 108,
        "ipc://a\nb",
    ],
)
def test_a_bad_broker_address_is_refused_with_a_reason(url: str) -> None:
    """A typo must not look like a broker that is down."""
    assert url_problem(url, bind=False)


@pytest.mark.parametrize(
    "url", ["tcp://host:1", "tcp://[::1]:5555", "tcp://10.0.0.1:65535", "ipc:///run/a", "ipc://@b"]
)
def test_a_good_broker_address_is_taken(url: str) -> None:
    """The check must not be stricter than what libzmq connects to."""
    assert url_problem(url, bind=False) is None


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "tcp://*:5555", "tcp://127.0.0.1:*"])
def test_listening_knows_wildcards(url: str) -> None:
    """Port 0 asks for a free port; to connect there makes no sense."""
    assert url_problem(url, bind=True) is None
    assert url_problem(url, bind=False)


@given(st.text(), st.booleans())
def test_no_text_makes_the_check_itself_fail(text: str, bind: bool) -> None:
    """It sees what users type, before anything else can."""
    for url in (text, f"tcp://{text}", f"ipc://{text}", f"tcp://{text}:1"):
        problem = url_problem(url, bind=bind)
        if problem is None:
            assert is_loopback(url) in (True, False)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("tcp://127.0.0.1:5555", True),
        ("tcp://127.9.9.9:5555", True),
        ("tcp://[::1]:5555", True),
        ("tcp://localhost:5555", True),
        ("tcp://LOCALHOST:5555", True),
        ("ipc:///run/x", True),
        ("tcp://*:5555", False),
        ("tcp://0.0.0.0:5555", False),
        ("tcp://[::]:5555", False),
        ("tcp://10.1.2.3:5555", False),
        ("tcp://localhost.example.org:5555", False),
        ("tcp://127.0.0.1.example.org:5555", False),
        ("tcp://eth0:5555", False),
    ],
)
def test_only_loopback_counts_as_loopback(url: str, local: bool) -> None:
    """A mistake here opens a broker without any lock to the network."""
    assert is_loopback(url) is local
