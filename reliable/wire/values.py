"""How wire values are declared: frozen for the type checker, plain at run time.

A frozen attrs class sets each field through ``object.__setattr__``, which makes building one three times as slow. Every
message of every peer builds some, so here only the type checker enforces what ``attrs.frozen`` would. Nothing in this
project changes a wire value after it was built; the hash stays valid for that reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

__all__ = ["value"]

if TYPE_CHECKING:
    from attrs import frozen as value
else:

    def value(cls: type | None = None, **options: Any) -> type | Callable[[type], type]:
        """``attrs.frozen``, for the type checker alone."""
        decorate = attrs.define(unsafe_hash=True, **options)
        return decorate if cls is None else decorate(cls)
