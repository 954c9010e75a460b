"""Finds scenarios by name: ``server-dies`` is ``SCENARIO`` in ``chaos/scenarios/server_dies.py``."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil

from chaos import scenarios
from chaos.running.model import Scenario
from reliable.errors import ReliableError

__all__ = ["UnknownScenario", "all_scenarios", "find", "named"]


class UnknownScenario(ReliableError):
    """There is no scenario of that name; the message names those that are near."""


@functools.cache
def all_scenarios() -> dict[str, Scenario]:
    """Every scenario by its name, in order of names."""
    found = {}
    for module in pkgutil.iter_modules(scenarios.__path__):
        scenario = importlib.import_module(f"{scenarios.__name__}.{module.name}").SCENARIO
        if not isinstance(scenario, Scenario) or scenario.name.replace("-", "_") != module.name:
            raise TypeError(f"{module.name}.py must hold SCENARIO, named after the file")
        found[scenario.name] = scenario
    return dict(sorted(found.items()))


def named(name: str) -> list[Scenario]:
    """The scenario of that name, or all whose names begin with it: ``packet-loss`` means all its shares.

    Raises:
        UnknownScenario: There is none.
    """
    known = all_scenarios()
    family = [scenario for other, scenario in known.items() if other.startswith(f"{name}-")]
    return family if family and name not in known else [find(name)]


def find(name: str) -> Scenario:
    """The scenario of that name.

    Raises:
        UnknownScenario: There is none.
    """
    known = all_scenarios()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or [one for one in known if name and name in one][:3]
    hint = f"; did you mean {' or '.join(near)}?" if near else "; see `reliable chaos list`"
    raise UnknownScenario(f"there is no scenario {name!r}{hint}")
