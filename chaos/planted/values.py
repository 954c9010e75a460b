"""What a planted bug is: a name, what it breaks, who has to notice, and how it is put in and taken out again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

__all__ = ["MISSING", "Change", "PlantedBug"]

MISSING: Final = object()


@attrs.frozen
class Change:
    """One attribute of a production class or module, and what stands there while the bug is in."""

    owner: Any
    name: str
    value: Any


@attrs.frozen(kw_only=True)
class PlantedBug:
    """One known mistake.

    Attributes:
        name: Short, in words joined by hyphens.
        breaks: What goes wrong because of it.
        found_by: The word in front of the problem that has to be reported: a checker's name, or that of a look.
        theme: The theme whose worlds find it soonest.
        seed: Of a world of that theme that finds it.
        changes: What has to be patched; made anew each time.
    """

    name: str
    breaks: str
    found_by: str
    theme: str
    seed: int
    changes: Callable[[], list[Change]] = attrs.field(repr=False, eq=False)

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """While this lasts, the production classes have the bug."""
        made: list[tuple[Change, Any]] = []
        try:
            for change in self.changes():
                made.append((change, vars(change.owner).get(change.name, MISSING)))
                setattr(change.owner, change.name, change.value)
            yield
        finally:
            for change, before in reversed(made):
                if before is MISSING:
                    delattr(change.owner, change.name)
                else:
                    setattr(change.owner, change.name, before)
