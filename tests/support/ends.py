"""How one call ended: what tests about lost links compare."""

from __future__ import annotations

import time

import attrs

from reliable import Client, Outcome, RequestError

__all__ = ["End", "call"]


@attrs.frozen
class End:
    """One call, over."""

    reply: object
    error: str
    outcome: str
    elapsed_s: float
    text: str = ""

    @property
    def ok(self) -> bool:
        """Whether it brought its reply."""
        return not self.error


def call(client: Client, service: str, word: str, timeout_s: float, *, idempotent: bool | None = None) -> End:
    """Make a call; only the errors that a call may end with count as an end."""
    begun = time.monotonic()
    try:
        reply = client.options(timeout=timeout_s, idempotent=idempotent).call(service, word)
    except RequestError as error:
        elapsed_s = time.monotonic() - begun
        return End(None, type(error).__name__, Outcome(error.outcome).name, elapsed_s, str(error))
    return End(reply, "", "EXECUTED", time.monotonic() - begun)
