"""The tree of errors: what the module's docstring shows is what the classes are."""

from __future__ import annotations

import inspect
import re

import pytest

from reliable import errors
from reliable.errors import Outcome, ReliableError, RequestError

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == errors.__name__
}

REQUEST_ERRORS = {name: cls for name, cls in CLASSES.items() if issubclass(cls, RequestError)}


def drawn_tree() -> dict[str, str | None]:
    """Class → parent, read from the picture in the module's docstring."""
    parents: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^ {4}([│├└─ ]*)([A-Z]\w+)\b", line)
        if match:
            depth = len(match[1])
            path = [(d, name) for d, name in path if d < depth]
            parents[match[2]] = path[-1][1] if path else None
            path.append((depth, match[2]))
    return parents


def drawn_text(name: str) -> str:
    """What the picture says behind a class."""
    (line,) = [line for line in (errors.__doc__ or "").splitlines() if re.search(rf"[─ ]{name}(\s|$)", line)]
    return line.split(name, 1)[1]


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    """It is the page that users read; a picture that drifts is worse than none."""
    real = {
        name: next((base.__name__ for base in cls.__bases__ if base.__name__ in CLASSES), None)
        for name, cls in CLASSES.items()
    }
    assert drawn_tree() == real
    assert len(real) > 20


def test_every_error_is_exported_and_nothing_else_is() -> None:
    """Star imports and the reference are made from this list."""
    assert sorted(errors.__all__) == sorted([*CLASSES, "Outcome", "Spent"])


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_errors_that_say_so_are_also_the_builtin_kind(name: str) -> None:
    """Callers may catch TimeoutError or ConnectionError without knowing this library."""
    cls = CLASSES[name]
    inherited = {base.__name__ for base in cls.__mro__ if base.__module__ == "builtins"}
    declared = {base.__name__ for base in cls.__bases__ if base.__module__ == "builtins"}
    for builtin in re.findall(r"also (\w+)", drawn_text(name)):
        assert builtin in inherited
    assert declared - {"Exception"} <= {*re.findall(r"also (\w+)", drawn_text(name)), "ValueError"}


@pytest.mark.parametrize("name", sorted(REQUEST_ERRORS))
def test_the_default_outcome_is_the_one_drawn(name: str) -> None:
    """Whether the work may have run is the most important thing an error says."""
    drawn = re.findall(r"\b(UNKNOWN|NOT_EXECUTED|EXECUTED)\b", drawn_text(name))
    if len(drawn) == 1:
        assert REQUEST_ERRORS[name]().outcome is Outcome[drawn[0]]
    assert isinstance(REQUEST_ERRORS[name]().outcome, Outcome)


def test_whatever_was_refused_is_known_not_to_have_run() -> None:
    """The whole branch stands for one sentence: no worker saw it."""
    for cls in CLASSES.values():
        if issubclass(cls, errors.RequestRefused):
            assert cls().outcome is Outcome.NOT_EXECUTED


def test_an_error_keeps_its_facts_as_fields() -> None:
    """Messages are for people; programs decide on fields."""
    error = errors.WorkerLost(
        "gone",
        outcome=Outcome.NOT_EXECUTED,
        service="echo",
        call_id=b"1" * 16,
        attempts=3,
        elapsed_s=1.5,
        retry_after_s=0.2,
        story=("sent", "lost"),
    )
    assert error.message == "gone"
    assert (error.outcome, error.service, error.call_id) == (Outcome.NOT_EXECUTED, "echo", b"1" * 16)
    assert (error.attempts, error.elapsed_s, error.retry_after_s) == (3, 1.5, 0.2)
    assert error.story == ("sent", "lost")


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome.UNKNOWN, "it may have run"),
        (Outcome.NOT_EXECUTED, "it did not run"),
        (Outcome.EXECUTED, "it ran"),
    ],
)
def test_the_text_of_an_error_says_whether_it_may_have_run(outcome: Outcome, words: str) -> None:
    """Whoever finds it in a log has no fields to look at."""
    assert str(errors.RequestTimeout("too late", outcome=outcome)) == f"too late ({words})"
    assert str(errors.RequestTimeout(outcome=outcome)) == words


def test_everything_is_caught_by_the_one_base() -> None:
    """``except ReliableError`` is a complete sentence."""
    assert all(issubclass(cls, ReliableError) for cls in CLASSES.values())
    assert not issubclass(ReliableError, (OSError, ValueError))
