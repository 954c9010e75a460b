"""The demo's output while it runs: one line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import Final, TextIO

__all__ = ["Screen"]

_CLEAR_LINE: Final = "\r\x1b[K"
_RED: Final = "\x1b[31m"
_PLAIN: Final = "\x1b[0m"
_PIPED_EVERY_S: Final = 2.0


class Screen:
    """Where events and progress go."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._progress_at_s = float("-inf")

    def line(self, text: str) -> None:
        """A line that stays."""
        self._write(f"{_CLEAR_LINE if self._live else ''}{text}\n")

    def fault(self, at_s: float, text: str) -> None:
        """Something was broken or mended."""
        stamp = f"{at_s:6.1f} s  "
        self.line(f"{stamp}{_RED}{text}{_PLAIN}" if self._live else f"{stamp}{text}")

    def progress(self, at_s: float, done: int, planned: int, in_flight: int, retried: int) -> None:
        """How far it is: replaces the last such line on a terminal, comes every two seconds elsewhere."""
        text = f"{at_s:6.1f} s  {done}/{planned} calls done, {in_flight} in flight, {retried} retried"
        if self._live:
            width = 24
            filled = width * done // max(planned, 1)
            self._write(f"{_CLEAR_LINE}[{'#' * filled}{'.' * (width - filled)}] {text.strip()}")
        elif at_s >= self._progress_at_s + _PIPED_EVERY_S:
            self._progress_at_s = at_s
            self._write(f"{text}\n")

    def close(self) -> None:
        """Take the changing line away."""
        if self._live:
            self._write(_CLEAR_LINE)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
