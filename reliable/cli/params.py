"""Types of options and arguments: what is refused before anything is opened."""

from __future__ import annotations

import ipaddress
import math
from typing import Final

import click

from reliable.names import parse_address
from reliable.wire.mdp import check_service

__all__ = ["BIND_URL", "BROKER_URL", "DEFAULT_BROKER", "SECONDS", "SERVICE", "is_loopback", "url_problem"]

DEFAULT_BROKER: Final = "tcp://127.0.0.1:5555"
_PORT_MAX: Final = 65535
_IPC_PATH_BYTES_MAX: Final = 107
"""What fits into the kernel's ``sun_path`` with its closing zero."""
_LOOPBACK_NAMES: Final = frozenset({"localhost", "lo", "lo0"})


class _Url(click.ParamType[str]):
    name = "url"

    def __init__(self, *, bind: bool) -> None:
        self._bind = bind

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        problem = url_problem(value, bind=self._bind)
        if problem is not None:
            self.fail(f"{value!r} {problem}", param, ctx)
        return value


class _Seconds(click.ParamType[float]):
    name = "seconds"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        if not (math.isfinite(seconds) and seconds > 0):
            self.fail(f"{value!r} is not a positive, finite number of seconds", param, ctx)
        return seconds


class _Service(click.ParamType[str]):
    name = "service"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            check_service(value.encode("utf-8", "surrogateescape"))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


BIND_URL: Final = _Url(bind=True)
BROKER_URL: Final = _Url(bind=False)
SECONDS: Final = _Seconds()
SERVICE: Final = _Service()


def url_problem(url: str, *, bind: bool) -> str | None:
    """What is wrong with an address, as the end of a sentence that begins with it; or None."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("tcp", "ipc"):
        return "is not an address: tcp://HOST:PORT or ipc://PATH is"
    if not url.isprintable() or " " in url:
        return "has a space or a character that cannot be printed"
    if scheme == "ipc":
        return _ipc_problem(rest)
    if "/" in rest:
        return "has a path; an address ends with its port"
    return _bind_problem(rest) if bind else _connect_problem(url)


def _ipc_problem(path: str) -> str | None:
    if not path:
        return "has no path"
    size = len(path.encode())
    return f"has a path of {size} bytes; {_IPC_PATH_BYTES_MAX} are allowed" if size > _IPC_PATH_BYTES_MAX else None


def _connect_problem(url: str) -> str | None:
    try:
        parse_address(url)
    except ValueError as error:
        return str(error).removeprefix(repr(url)).strip()
    return None


def _bind_problem(rest: str) -> str | None:
    host, separator, port = rest.rpartition(":")
    if not separator or not host:
        return "has no host and port"
    if port == "*":
        return None
    if not (port.isascii() and port.isdigit() and len(port) <= len(str(_PORT_MAX)) and int(port) <= _PORT_MAX):
        return f"has no port from 0 to {_PORT_MAX}"
    return None


def is_loopback(url: str) -> bool:
    """Whether only this machine can reach a valid bind address."""
    scheme, _, rest = url.partition("://")
    if scheme == "ipc":
        return True
    host = rest.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in _LOOPBACK_NAMES
