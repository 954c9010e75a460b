"""What ``reliable worker`` makes of the thing that MODULE:OBJECT names."""

from __future__ import annotations

import math
import time
from typing import Any

import click
import pytest

from reliable import AsyncWorker, Worker
from reliable.cli.worker_target import Wish, as_worker


class _Shop:
    """An object to register."""

    fee = 3

    def price(self, article: str) -> int:
        """A public method."""
        return len(article)

    async def order(self, article: str) -> str:
        """Another one, that runs as a task."""
        return article

    def _secret(self) -> None: ...


class _Caller(_Shop):
    def __call__(self, value: int) -> int:
        return value


def _handler(made: Worker | AsyncWorker, name: str) -> Any:
    return made._setup.services.find(name.encode())


def test_the_methods_of_an_object_are_served_under_its_name() -> None:
    """That is what clients write: client.service("shop").price("lamp")."""
    assert as_worker(_Shop(), "m:shop", Wish()).services == ["shop.order", "shop.price"]
    assert as_worker(_Shop(), "m:a.shop", Wish(object_name="kiosk")).services == ["kiosk.order", "kiosk.price"]


def test_an_object_that_can_be_called_is_a_function_unless_it_is_named() -> None:
    """Both make sense, so the user has the word."""
    assert as_worker(_Caller(), "m:it", Wish()).services == ["it"]
    assert as_worker(_Caller(), "m:it", Wish(object_name="it")).services == ["it.order", "it.price"]


def test_options_count_for_what_has_none_of_its_own() -> None:
    """The author of a handler knows better than whoever starts it."""
    worker = Worker()
    worker.service("own", timeout=1.0, executor="inline")(lambda: None)
    worker.service("free")(time.sleep)
    made = as_worker(worker, "m:worker", Wish(executor="process", handler_timeout_s=7.0))
    assert made is worker
    own, free = _handler(made, "own"), _handler(made, "free")
    assert (own.executor, own.options.timeout) == ("inline", 1.0)
    assert (free.executor, free.options.timeout) == ("process", 7.0)
    rules = made._setup.services.rules()
    assert (rules[b"free"].timeout_s, rules[b"free"].killable) == (7.0, True)


def test_options_count_for_functions_and_objects() -> None:
    """They have no other place to say them."""
    wish = Wish(executor="process", handler_timeout_s=7.0, idempotent=True)
    handler = _handler(as_worker(math.sqrt, "math:sqrt", wish), "sqrt")
    assert (handler.executor, handler.options.timeout, handler.offer.idempotent) == ("process", 7.0, True)
    shop = as_worker(_Shop(), "m:shop", Wish(handler_timeout_s=7.0, idempotent=False))
    assert _handler(shop, "shop.price").options.timeout == 7.0
    assert _handler(shop, "shop.order").executor == "task"


@pytest.mark.parametrize(
    ("found", "wish", "words"),
    [
        (Worker(), Wish(), "no service"),
        (Worker(), Wish(object_name="x"), "this is a worker"),
        (_Shop, Wish(object_name="x"), "neither a worker nor a function"),
        (3.14, Wish(), "neither a worker nor a function"),
        (3.14, Wish(object_name="pi"), "no public methods"),
        (_Shop(), Wish(service="shop"), "--object-name names it"),
        (_Shop(), Wish(executor="process"), "method of an object"),
        (_Shop(), Wish(executor="thread"), "coroutine function"),
        (time.sleep, Wish(executor="task"), "no coroutine function"),
        (lambda: None, Wish(executor="process", service="f"), "only what a module has by name"),
    ],
)
def test_what_cannot_be_served_so_is_wrong_usage(found: object, wish: Wish, words: str) -> None:
    """In words that name the way out, before anything is opened."""
    with pytest.raises(click.UsageError, match=words):
        as_worker(found, "m:it", wish)
