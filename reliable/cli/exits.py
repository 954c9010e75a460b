"""From what went wrong to one line of text and the documented exit code."""

from __future__ import annotations

import errno
from typing import Final

from reliable.errors import (
    AttemptsExhausted,
    BrokerUnreachable,
    DeadlineExceeded,
    MessageTooLarge,
    Outcome,
    ReliableError,
    RequestError,
    RequestRefused,
    WorkerFailed,
)
from reliable.status import STATUS_TABLE, ExitCode

__all__ = ["CommandFailed", "describe", "exit_code", "message_of", "one_line", "outcome_text"]


class CommandFailed(Exception):
    """A command cannot go on: its text is what the user reads, ``code`` what the shell sees."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__(message)
        self.code = code


def _codes() -> dict[type[BaseException], ExitCode]:
    codes: dict[type[BaseException], ExitCode] = {
        rule.error: rule.exit_code
        for rule in STATUS_TABLE.values()
        if rule.error is not None and rule.exit_code is not None
    }
    # These never come with a status: they are what the client finds out alone.
    codes[BrokerUnreachable] = ExitCode.UNREACHABLE
    codes[AttemptsExhausted] = ExitCode.TIMEOUT
    codes[DeadlineExceeded] = ExitCode.TIMEOUT
    codes[MessageTooLarge] = ExitCode.TOO_LARGE
    codes[RequestRefused] = ExitCode.REFUSED
    codes[TimeoutError] = ExitCode.TIMEOUT
    return codes


_CODES: Final = _codes()
_OUTCOME_TEXT: Final = {
    Outcome.UNKNOWN: "may have run",
    Outcome.NOT_EXECUTED: "not executed",
    Outcome.EXECUTED: "executed",
}


def exit_code(error: BaseException) -> ExitCode:
    """The exit code for an error: the one of its nearest class that has one, else ``FAILURE``."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        return ExitCode.ADDRESS_IN_USE
    return ExitCode.FAILURE


def outcome_text(outcome: Outcome) -> str:
    """An outcome in words."""
    return _OUTCOME_TEXT[outcome]


def one_line(text: str) -> str:
    """The text without line breaks and control characters: parts of it may come from another machine."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def message_of(error: ReliableError) -> str:
    """What was the matter, in one line, without the outcome that is shown beside it."""
    return one_line(error.message if isinstance(error, RequestError) else str(error))


def describe(error: ReliableError) -> str:
    """What a user should know of an error, in one line: class, outcome, attempts, text, story."""
    name = type(error).__name__
    if not isinstance(error, RequestError):
        return one_line(f"{name}: {error}")
    facts = [outcome_text(error.outcome), _attempts_text(error.attempts), f"{error.elapsed_s:.2f} s"]
    if error.retry_after_s is not None:
        facts.append(f"retry after {error.retry_after_s:.1f} s")
    text = error.message
    if isinstance(error, WorkerFailed) and error.remote_message not in text:
        text = f"{text}: {error.remote_type}: {error.remote_message}"
    if error.story:
        text = f"{text} [story: {'; '.join(error.story)}]"
    return one_line(f"{name} ({', '.join(facts)}): {text}")


def _attempts_text(attempts: int) -> str:
    return "never sent" if attempts == 0 else "1 attempt" if attempts == 1 else f"{attempts} attempts"
