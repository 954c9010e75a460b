"""What happened in a world, line by line, and one hash that stands for all of it."""

from __future__ import annotations

import hashlib

from chaos.sim.clock import VirtualClock

__all__ = ["Trace"]

_LINES_AT_ONCE = 256


class Trace:
    """A list of lines with the time in front, and a running hash over them."""

    def __init__(self, clock: VirtualClock, *, keep: bool = True, verbose: bool = False) -> None:
        """Record from now on.

        Args:
            clock: Where the times come from.
            keep: False keeps the hash alone, for long runs.
            verbose: Also keep remarks: for a reader, too dear for every run. They are no part of the hash.
        """
        self.lines: list[str] = []
        self.count = 0
        self._clock = clock
        self._unhashed: list[str] = []
        self._start_s = clock()
        self._keep = keep
        self.verbose = verbose
        self._hash = hashlib.blake2b(digest_size=16)

    def __call__(self, line: str) -> None:
        """Note that ``line`` happens now."""
        text = f"{self._clock.reading - self._start_s:11.6f}  {line}"
        self.count += 1
        self._unhashed.append(text)
        if len(self._unhashed) >= _LINES_AT_ONCE:
            self._take_in()
        if self._keep:
            self.lines.append(text)

    def _take_in(self) -> None:
        if self._unhashed:
            self._hash.update(("\n".join(self._unhashed) + "\n").encode())
            self._unhashed.clear()

    def remark(self, line: str) -> None:
        """Keep a line for a reader, outside the hash."""
        if self.verbose:
            self.lines.append(f"{self._clock() - self._start_s:11.6f}    {line}")

    def hash(self) -> str:
        """Two runs with equal hashes did the same things at the same times."""
        self._take_in()
        return self._hash.hexdigest()

    def matching(self, *words: str) -> list[str]:
        """The lines that contain all of these words."""
        return [line for line in self.lines if all(word in line for word in words)]
