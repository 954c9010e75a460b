"""The blocking and the asyncio shell offer the same: who knows one knows the other."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from concurrent.futures import Future

import pytest

import reliable

PAIRS = [
    (reliable.Client, reliable.AsyncClient),
    (reliable.ClientView, reliable.AsyncClientView),
    (reliable.ServiceProxy, reliable.AsyncServiceProxy),
    (reliable.Stream, reliable.AsyncStream),
    (reliable.MapResults, reliable.AsyncMapResults),
    (reliable.Worker, reliable.AsyncWorker),
]
# How a word of the one reads in the other; all else must be equal.
_SAME = (
    (r"\bAsync(?=[A-Z])", ""),
    (r"\b(?:Awaitable|Coroutine\[(?:Any|object), (?:Any|object|None),) ?\[?", "["),
    (r"^aclose$", "close"),
    (r"^__a(?=enter__|exit__|iter__)", "__"),
    (r"^__anext__", "__next__"),
)


def _plain(word: str) -> str:
    for pattern, replacement in _SAME:
        word = re.sub(pattern, replacement, word)
    return word


def _methods(owner: type) -> dict[str, Callable[..., object]]:
    """Public methods and the protocol of ``with``, by their blocking names."""
    shown = ("__init__", "__enter__", "__exit__", "__iter__", "__next__", "__call__", "__getattr__")
    return {
        _plain(name): member
        for name, member in inspect.getmembers(owner, callable)
        if (not name.startswith("_") or _plain(name) in shown) and not isinstance(member, type)
    }


def _properties(owner: type) -> set[str]:
    return {name for name, member in inspect.getmembers(owner) if isinstance(member, property) and name[0] != "_"}


def _parameters(method: Callable[..., object]) -> list[tuple[str, str, object, str]]:
    return [
        (parameter.name, parameter.kind.description, parameter.default, _plain(str(parameter.annotation)))
        for parameter in inspect.signature(method).parameters.values()
    ]


def _differences(blocking: type, awaiting: type) -> list[str]:
    ours, theirs = _methods(blocking), _methods(awaiting)
    found = [f"only one has {name}" for name in sorted(ours.keys() ^ theirs.keys())]
    found += [f"only one has {name}" for name in sorted(_properties(blocking) ^ _properties(awaiting))]
    for name in sorted(ours.keys() & theirs.keys()):
        one, other = _parameters(ours[name]), _parameters(theirs[name])
        if one != other:
            found.append(f"{name}: {one} and {other}")
    return found


@pytest.mark.parametrize(("blocking", "awaiting"), PAIRS)
def test_both_shells_have_the_same_methods_and_parameters(blocking: type, awaiting: type) -> None:
    """A keyword that exists in one shell only is found by users, too late."""
    assert len(_methods(blocking)) > 3
    assert _differences(blocking, awaiting) == []


def test_a_view_can_call_all_that_its_client_can() -> None:
    """Options are for every kind of call."""
    of_the_client_alone = {"__init__", "__enter__", "__exit__", "close", "snapshot", "stats"}
    for client, view in ((reliable.Client, reliable.ClientView), (reliable.AsyncClient, reliable.AsyncClientView)):
        assert _methods(client).keys() - _methods(view).keys() == of_the_client_alone - {"__init__"}
        for name in _methods(view).keys() - {"__init__"}:
            assert _parameters(_methods(client)[name]) == _parameters(_methods(view)[name]), name


def test_submitted_calls_differ_only_as_the_futures_they_are() -> None:
    """The blocking one is a ``concurrent.futures.Future``, the other one an ``asyncio.Future``; the rest is equal."""
    ours = {name for name in vars(reliable.PendingCall) if name[0] != "_"}
    theirs = {name for name in vars(reliable.AsyncPendingCall) if name[0] != "_"}
    assert theirs <= ours
    assert {name for name in ours - theirs if not hasattr(Future, name)} == set()


@pytest.mark.parametrize(("blocking", "awaiting"), PAIRS)
def test_both_shells_are_documented_alike(blocking: type, awaiting: type) -> None:
    """A method without a word is one that only its author can use."""
    for owner in (blocking, awaiting):
        undocumented = [name for name, method in _methods(owner).items() if name[0] != "_" and not method.__doc__]
        assert undocumented == [], owner


def test_difference_is_found() -> None:
    """A check that has never failed proves nothing."""

    class Thing:
        def call(self, service: str, *, timeout: float = 1.0) -> None: ...
        def only(self) -> None: ...

    class AsyncThing:
        async def call(self, service: str, *, timeout: float = 2.0) -> None: ...  # noqa: ASYNC109 - only compared

    assert len(_differences(Thing, AsyncThing)) == 2
    assert _differences(Thing, Thing) == []
