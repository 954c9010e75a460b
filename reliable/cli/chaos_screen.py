"""The output of ``reliable chaos run`` while it runs: one line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import Final, TextIO

__all__ = ["ChaosScreen"]

_CLEAR_LINE: Final = "\r\x1b[K"
_COLOURS: Final = {"passed": "\x1b[32m", "failed": "\x1b[31m", "not injected": "\x1b[33m"}
_PLAIN: Final = "\x1b[0m"


class ChaosScreen:
    """Where news and progress go. Safe to use from one thread at a time."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()

    def say(self, kind: str, text: str) -> None:
        """News of a run: ``"progress"`` replaces the last of its sort and is shown on a terminal only."""
        if kind != "progress":
            self.line(f"  {text}")
        elif self._live:
            self._write(f"{_CLEAR_LINE}  {text}")

    def line(self, text: str) -> None:
        """A line that stays."""
        self._write(f"{_CLEAR_LINE if self._live else ''}{text}\n")

    def result(self, verdict: str, text: str) -> None:
        """How a run ended."""
        shown = f"{_COLOURS[verdict]}{verdict}{_PLAIN}" if self._live else verdict
        self.line(f"  {shown}: {text}")

    def close(self) -> None:
        """Take the changing line away."""
        if self._live:
            self._write(_CLEAR_LINE)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
