"""Arguments of handlers, checked at the door: the annotations of a handler say what it takes."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, get_type_hints

import msgspec

__all__ = ["Arguments", "InvalidArguments"]

_AS_THEY_ARE: Final = (bytes, bytearray)
"""Types that a binary codec carries itself, so that text is not taken for base64."""


class InvalidArguments(ValueError):
    """What was sent does not fit what the handler takes, so it was not entered."""


class Arguments:
    """What one handler takes.

    Parameters without annotations take everything, and so do those whose annotation cannot be checked: names that
    exist for type checkers alone, and classes that no message can carry.

    Args:
        function: The handler.
        typed: Whether to look at annotations at all; raw handlers take frames.
    """

    def __init__(self, function: Callable[..., Any], *, typed: bool) -> None:
        self._function = function
        self._typed = typed
        self._signature = _signature(function)
        self._types: dict[str, Any] | None = None

    def check(
        self, args: Sequence[object], kwargs: Mapping[str, object], *, textual: bool = False
    ) -> tuple[Sequence[object], dict[str, object]]:
        """The arguments as the handler wants them.

        Args:
            args: By position.
            kwargs: By name.
            textual: Whether the codec has neither bytes nor keys other than text, as JSON.

        Raises:
            InvalidArguments: One is missing, too much, or of another type; the text names it.
        """
        if self._signature is None:
            return args, dict(kwargs)
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(str(error)) from None
        # Names are looked up at the first call: when the handler is decorated, its module is not there yet.
        if self._types is None:
            self._types = _types(self._function, self._signature) if self._typed else {}
        for name in bound.arguments.keys() & self._types.keys():
            wanted, value = self._types[name], bound.arguments[name]
            try:
                bound.arguments[name] = msgspec.convert(
                    value, wanted, builtin_types=() if textual else _AS_THEY_ARE, str_keys=textual
                )
            except (msgspec.ValidationError, RecursionError) as error:
                raise InvalidArguments(f"argument {name!r}: {error}") from None
        return bound.args, bound.kwargs


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _types(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, Any]:
    """By parameter, the type to convert to; only those that can be checked."""
    found = {}
    for parameter in signature.parameters.values():
        annotation = _resolved(function, parameter.annotation)
        if annotation is inspect.Parameter.empty or annotation is Any or not _can_check(annotation):
            continue
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            annotation = tuple.__class_getitem__((annotation, ...))
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            annotation = dict.__class_getitem__((str, annotation))
        found[parameter.name] = annotation
    return found


def _resolved(function: Callable[..., Any], annotation: Any) -> Any:
    """An annotation as a type; what cannot be resolved is none."""
    if not isinstance(annotation, str):
        return annotation
    inner = inspect.unwrap(function)
    inner = getattr(inner, "__func__", inner)
    if not hasattr(inner, "__globals__"):
        inner = type(inner).__call__
    alone = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        names = dict(inspect.getclosurevars(inner).nonlocals) if inspect.isfunction(inner) else {}
        return get_type_hints(alone, getattr(inner, "__globals__", {}), names, include_extras=True)["it"]
    except Exception:
        return inspect.Parameter.empty


def _can_check(annotation: Any) -> bool:
    try:
        return not _is_custom(msgspec.inspect.type_info(annotation), set())
    except Exception:
        return False


def _is_custom(info: Any, seen: set[int]) -> bool:
    """Whether a class that msgspec knows nothing of is anywhere in a type."""
    if id(info) in seen:
        return False
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        return True
    inner = []
    for name in getattr(info, "__struct_fields__", ()):
        value = getattr(info, name)
        inner += list(value) if isinstance(value, tuple) else [value]
    parts = (msgspec.inspect.Type, msgspec.inspect.Field)
    return any(_is_custom(value, seen) for value in inner if isinstance(value, parts))
