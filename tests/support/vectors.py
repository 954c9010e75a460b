"""Reads the golden messages of ``tests/wire/vectors.txt``, for decoder tests and broker tests alike."""

from __future__ import annotations

from pathlib import Path

import attrs

__all__ = ["Vector", "load_vectors"]

_FILE = Path(__file__).parent.parent / "wire" / "vectors.txt"


@attrs.frozen
class Vector:
    """One golden message."""

    reader: str
    """``broker``, ``client``, ``worker``; ``router`` and ``sent`` have a routing id in front."""
    verdict: str
    name: str
    frames: tuple[bytes, ...]

    def __str__(self) -> str:
        return f"{self.name}@{self.reader}"


def load_vectors(*readers: str) -> list[Vector]:
    """All golden messages for these readers, in file order; all of them without an argument."""
    vectors = []
    for line in _FILE.read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            reader, verdict, name, *frames = line.split()
            decoded = tuple(b"" if frame == "-" else bytes.fromhex(frame) for frame in frames)
            vectors.append(Vector(reader, verdict, name, decoded))
    return [vector for vector in vectors if not readers or vector.reader in readers]
