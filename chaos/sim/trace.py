"""What happened in a world, line by line, and one hash that stands for all of it."""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections.abc import Sequence
from typing import Final

from chaos.sim.clock import VirtualClock

__all__ = ["Trace"]

_NUMBERS_AT_ONCE: Final = 2048
_BETWEEN: Final = b"|"


class Trace:
    """A list of lines with the time in front, and a running hash over them.

    The hash takes in, of each line, the exact time and a checksum; so a line that nobody reads is never made up.
    """

    def __init__(self, clock: VirtualClock, *, keep: bool = True, verbose: bool = False) -> None:
        """Record from now on.

        Args:
            clock: Where the times come from.
            keep: False keeps the hash alone, for long runs.
            verbose: Also keep remarks: for a reader, too dear for every run. They are no part of the hash.
        """
        self.lines: list[str] = []
        self.count = 0
        self.verbose = verbose
        self._clock = clock
        self._unhashed = array("d")
        self._beginnings: dict[tuple[str, str, int, str], int] = {}
        self._start_s = clock()
        self._keep = keep
        self._hash = hashlib.blake2b(digest_size=16)

    def __call__(self, line: str) -> None:
        """Note that ``line`` happens now."""
        self.count += 1
        unhashed = self._unhashed
        unhashed.append(self._clock.reading)
        unhashed.append(zlib.crc32(line.encode()))
        if len(unhashed) >= _NUMBERS_AT_ONCE:
            self._take_in()
        if self._keep:
            self.lines.append(f"{self._clock.reading - self._start_s:11.6f}  {line}")

    def message(self, who: str, way: str, link: int, frames: Sequence[bytes], end: str = "") -> None:
        """Note that a message passes now.

        Args:
            who: The process that it passes.
            way: ``<`` for what it reads, ``>`` for what it sends.
            link: Its number for the connection; 0 where the first frame tells.
            frames: Of the message.
            end: What became of it, if that is known.
        """
        beginning = self._beginnings.get((who, way, link, end))
        if beginning is None:
            words = f"{who} {way} {link} {end}"
            beginning = self._beginnings[who, way, link, end] = zlib.crc32(words.encode())
        # The count, since frames that differ only in where one ends and the next begins join to the same bytes.
        joined = _BETWEEN.join(frames)
        self.count += 1
        unhashed = self._unhashed
        unhashed.append(self._clock.reading)
        unhashed.append(zlib.crc32(joined, beginning) + len(frames))
        if len(unhashed) >= _NUMBERS_AT_ONCE:
            self._take_in()
        if self._keep:
            peer = f"link {link}" if link else frames[0].hex()
            text = f"{who} {way} {peer} {len(frames)} frames {zlib.crc32(joined):08x} {end}".rstrip()
            self.lines.append(f"{self._clock.reading - self._start_s:11.6f}  {text}")

    def _take_in(self) -> None:
        self._hash.update(self._unhashed)
        del self._unhashed[:]

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
