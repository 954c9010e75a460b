"""How a user chooses a dialect."""

from __future__ import annotations

import pytest

from reliable import AsyncClient, Client, ClientConfig
from reliable.calling import UNSET, ClientSetup, Unset
from reliable.config import Dialect
from reliable.engine.client import ClientEngine
from reliable.engine.plain import PlainEngine
from reliable.engine.plain_freelance import FreelanceEngine
from reliable.payload import MSGPACK

_ADDRESS = "tcp://127.0.0.1:5555"


@pytest.mark.parametrize(
    ("dialect", "engine"),
    [
        (UNSET, ClientEngine),
        ("mdp", ClientEngine),
        ("mdp/0.1", PlainEngine),
        (Dialect.MDP02, PlainEngine),
        ("req", PlainEngine),
        ("ppp", PlainEngine),
        ("freelance", FreelanceEngine),
    ],
)
def test_each_dialect_has_its_engine(dialect: str | Dialect | Unset, engine: type) -> None:
    """By name or by value; without a word it is the one of this library."""
    setup = ClientSetup([_ADDRESS], UNSET, None, MSGPACK, None, dialect=dialect)
    assert type(setup.engine()) is engine


def test_the_argument_goes_before_the_settings() -> None:
    """As with every other setting that has an argument of its own."""
    config = ClientConfig(dialect="req")
    assert type(ClientSetup([_ADDRESS], UNSET, config, MSGPACK, None).engine()) is PlainEngine
    assert type(ClientSetup([_ADDRESS], UNSET, config, MSGPACK, None, dialect="mdp").engine()) is ClientEngine


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_unknown_dialect_is_refused_when_the_client_is_made(kind: type[Client] | type[AsyncClient]) -> None:
    """Not at the first call, and with the names that there are."""
    with pytest.raises(ValueError, match=r"must be one of .*'freelance', not 'http'"):
        kind(_ADDRESS, dialect="http")
