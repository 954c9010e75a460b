"""What a handler says that it takes is what it gets, or it is not entered."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import attrs
import msgspec
import pytest

from reliable.arguments import Arguments, InvalidArguments
from reliable.payload import JSON, MSGPACK, Codec, decode_call, encode_call, encode_reply

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]


class AsStruct(msgspec.Struct):
    """One way to say it."""

    x: int


@dataclasses.dataclass
class AsDataclass:
    """Another."""

    x: int


@attrs.define
class AsAttrs:
    """Another."""

    x: int


class AsTypedDict(TypedDict):
    """Another."""

    x: int


class Opaque:
    """Nothing that a message can carry."""


def _check(function: Callable[..., Any], *args: object, codec: Codec = MSGPACK, **kwargs: Any) -> Any:
    sent, named = decode_call(codec, encode_call(codec, args, kwargs))
    args_, kwargs_ = Arguments(function, typed=True).check(sent, named, textual=codec is JSON)
    return function(*args_, **kwargs_)


def test_what_fits_comes_through() -> None:
    """The plain case."""

    def handler(a: int, b: str = "b", *rest: float, c: bool, **more: list[int]) -> object:
        return [a, b, rest, c, more]

    assert _check(handler, 1, "x", 2, 3.5, c=True, d=[1]) == [1, "x", (2.0, 3.5), True, {"d": [1]}]
    assert _check(handler, 1, c=False) == [1, "b", (), False, {}]


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        (("1",), {"c": True}, "argument 'a': Expected `int`, got `str`"),
        ((1, 2), {"c": True}, "argument 'b': Expected `str`, got `int`"),
        ((1, "b", "r"), {"c": True}, "argument 'rest': Expected `float`, got `str` - at `$[0]`"),
        ((1,), {"c": 1}, "argument 'c': Expected `bool`, got `int`"),
        ((1,), {"c": True, "d": ["x"]}, "argument 'more': Expected `int`, got `str`"),
        ((), {"c": True}, "missing a required argument: 'a'"),
        ((1,), {}, "missing a required argument: 'c'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(args: Sequence[object], kwargs: dict[str, Any], words: str) -> None:
    """The caller must be able to mend it without the handler's source."""

    def handler(a: int, b: str = "b", *rest: float, c: bool, **more: list[int]) -> None:
        raise AssertionError("entered")

    with pytest.raises(InvalidArguments) as caught:
        _check(handler, *args, **kwargs)
    assert words in str(caught.value)


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
@pytest.mark.parametrize("kind", [AsStruct, AsDataclass, AsAttrs])
def test_records_arrive_as_what_they_are_and_go_back(kind: type[Any], codec: Codec) -> None:
    """Written once, in the annotation."""

    def handler(record: kind) -> object:  # type: ignore[valid-type]
        assert isinstance(record, kind)
        return record

    result = _check(handler, {"x": 1}, codec=codec)
    assert codec.decode(encode_reply(codec, result)[0]) == {"x": 1}
    with pytest.raises(InvalidArguments, match=r"argument 'record': Expected `int`, got `str` - at `\$.x`"):
        _check(handler, {"x": "1"}, codec=codec)
    with pytest.raises(InvalidArguments, match="missing required field `x`"):
        _check(handler, {}, codec=codec)


def test_typed_dicts_and_constraints_are_checked_too() -> None:
    """Whatever msgspec knows."""

    def handler(record: AsTypedDict, mode: Literal["r", "w"], size: Annotated[int, msgspec.Meta(ge=1)]) -> object:
        return record

    assert _check(handler, {"x": 1}, "r", 1) == {"x": 1}
    for bad in (({"x": None}, "r", 1), ({"x": 1}, "a", 1), ({"x": 1}, "r", 0)):
        with pytest.raises(InvalidArguments):
            _check(handler, *bad)


def test_text_is_no_bytes_in_a_binary_codec_and_base64_in_a_textual_one() -> None:
    """JSON has no bytes; MessagePack has, so there text where bytes belong is a mistake."""

    def handler(data: bytes) -> bytes:
        return data

    assert _check(handler, b"\x00\xff") == b"\x00\xff"
    assert _check(handler, b"\x00\xff", codec=JSON) == b"\x00\xff"
    with pytest.raises(InvalidArguments, match="Expected `bytes`"):
        _check(handler, "AP8=")


def test_keys_of_mappings_are_what_they_were_before_json() -> None:
    """JSON has only text as keys."""

    def handler(counts: dict[int, str]) -> object:
        return counts

    assert _check(handler, {1: "a"}) == _check(handler, {1: "a"}, codec=JSON) == {1: "a"}
    with pytest.raises(InvalidArguments):
        _check(handler, {"1": "a"})


def test_what_is_not_annotated_or_cannot_be_checked_stays_as_it_is() -> None:
    """Annotations were there before this library looked at them."""

    def handler(a, b: Any, c: Missing, d: list[Opaque], e: object = None) -> object:  # type: ignore[no-untyped-def]
        return [a, b, c, d, e]

    assert _check(handler, 1, "2", [3], {"d": 4}, 5) == [1, "2", [3], {"d": 4}, 5]


def test_one_name_that_is_missing_leaves_the_others_checked() -> None:
    """A name for type checkers alone must not switch off everything."""

    def handler(a: Missing, b: int) -> object:
        return [a, b]

    assert _check(handler, "x", 1) == ["x", 1]
    with pytest.raises(InvalidArguments, match="'b'"):
        _check(handler, "x", "y")


class Recursive(msgspec.Struct):
    """A type that contains itself."""

    inner: Recursive | None = None


def test_recursive_types_and_methods_and_callable_objects_are_handlers() -> None:
    """Each has its annotations in another place."""

    class Service:
        def method(self, a: int) -> int:
            return a

        @classmethod
        def of_class(cls, a: int) -> int:
            return a

        @staticmethod
        def static(a: int) -> int:
            return a

        def __call__(self, a: int) -> int:
            return a

    def tree(node: Recursive) -> object:
        return node.inner

    assert _check(tree, {"inner": {}}) == Recursive()
    service = Service()
    for handler in (service.method, Service.of_class, Service.static, service):
        assert _check(handler, 1) == 1
        with pytest.raises(InvalidArguments, match="'a'"):
            _check(handler, "1")


def test_functions_without_a_signature_and_raw_ones_are_left_alone() -> None:
    """Some in C have none; frames have no type."""
    with pytest.raises(ValueError, match="signature"):
        inspect.signature(max)
    assert Arguments(max, typed=True).check([1, 2], {}) == ([1, 2], {})

    def raw(frame: int) -> None: ...

    assert Arguments(raw, typed=False).check([b"x"], {})[0] == (b"x",)
    with pytest.raises(InvalidArguments, match="too many"):
        Arguments(raw, typed=False).check([b"x", b"y"], {})
