"""A network that is really cut: a scenario runs in a network namespace, and nftables drops its packets.

The namespace holds nothing but loopback addresses that play three hosts. Whatever the scenario needs, broker, worker
and client, it starts in there, so it is a function that another process can find: at the top of a module.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chaos.injection import NotInjected
from chaos.netns import Network, host, probe, run_in_namespace

__all__ = ["RESULT_MARK", "Hosts", "Partition"]

RESULT_MARK: Final = "reliable-scenario-result:"
"""In front of the line that holds what a scenario returned."""

_FAULT: Final = "partition"
_HOW: Final = "needs nft and ip (packages nftables and iproute2) and user namespaces"
_CLIENT, _BROKER, _WORKER = host(1), host(2), host(3)
_PORT: Final = 5555


class Hosts:
    """What a scenario is given: three hosts, and scissors.

    Attributes:
        bind: Where the broker is to listen.
        client: Where a client on the client's host connects.
        worker: Where a worker on the worker's host connects.
    """

    bind: Final = f"tcp://{_BROKER}:{_PORT}"
    client: Final = f"tcp://{_CLIENT}:0;{_BROKER}:{_PORT}"
    worker: Final = f"tcp://{_WORKER}:0;{_BROKER}:{_PORT}"

    def __init__(self, network: Network) -> None:
        self._network = network
        self._addresses = {"client": _CLIENT, "worker": _WORKER}

    def cut(self, who: str) -> contextlib.AbstractContextManager[None]:
        """Inside the block nothing passes between ``"client"`` or ``"worker"`` and the broker, and nobody is told.

        Raises:
            FaultUnproven: At the end of the block, if no packet was dropped.
        """
        return self._network.partition(self._address(who), _BROKER)

    def deafen(self, who: str) -> contextlib.AbstractContextManager[None]:
        """Inside the block nothing from the broker arrives at it; what it sends arrives."""
        return self._network.one_way(_BROKER, self._address(who))

    def mute(self, who: str) -> contextlib.AbstractContextManager[None]:
        """Inside the block nothing from it arrives at the broker; what the broker sends arrives."""
        return self._network.one_way(self._address(who), _BROKER)

    def loss(self, who: str, share: float) -> contextlib.AbstractContextManager[None]:
        """Inside the block each packet between it and the broker is lost with this chance, above 0 and up to 1."""
        return self._network.loss(self._address(who), _BROKER, share)

    def _address(self, who: str) -> str:
        if who not in self._addresses:
            raise ValueError(f"there is no host {who!r} to cut off from the broker: it is 'client' or 'worker'")
        return self._addresses[who]

    def dropped(self) -> int:
        """Packets that were dropped so far, by the kernel's count."""
        return self._network.dropped()


class Partition:
    """Runs scenarios, each in a network namespace of its own.

    Raises:
        NotInjected: This machine cannot; the text says what it lacks.
    """

    def __init__(self) -> None:
        absence = probe()
        if absence is not None:
            raise NotInjected(_FAULT, f"{absence.reason}; {_HOW}")

    def run(self, scenario: Callable[[Hosts], object], *, timeout: float = 30.0) -> object:
        """Run a scenario to its end, in a process of its own.

        Args:
            scenario: A function at the top of its module.
            timeout: Seconds; after them everything in the namespace is killed.

        Returns:
            What the scenario returned, by way of JSON.

        Raises:
            AssertionError: The scenario raised; its traceback is in the message.
            TimeoutError: It took too long; its last lines are in the message.
            ValueError: Not a function that another process can find.
        """
        path, name = _place(scenario)
        argv = [sys.executable, "-m", "reliable.testing.inside", str(path), scenario.__module__, name]
        env = {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
        done = run_in_namespace(argv, timeout_s=timeout, env=env)
        results = [line for line in done.output.splitlines() if line.startswith(RESULT_MARK)]
        if done.exit_code != 0 or not results:
            raise AssertionError(f"scenario {name} ended with exit code {done.exit_code}:\n{done.output}")
        value: object = json.loads(results[-1].removeprefix(RESULT_MARK))
        return value


def _place(scenario: Callable[[Hosts], object]) -> tuple[Path, str]:
    name = getattr(scenario, "__qualname__", "")
    if not inspect.isfunction(scenario) or "<" in name or "." in name:
        raise ValueError(f"{scenario!r} is not a function at the top of a module, where another process could find it")
    path = inspect.getsourcefile(scenario)
    if path is None or not Path(path).is_file():
        raise ValueError(f"{name} comes from no file, so another process cannot find it")
    return Path(path).resolve(), name
