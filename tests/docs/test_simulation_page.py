"""The page on the simulator says what the simulator does."""

from __future__ import annotations

import re
from pathlib import Path

from chaos.planted import BUGS
from chaos.sim.themes import THEMES

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "simulation.md").read_text(encoding="utf-8")


def test_the_page_has_every_theme_with_its_summary() -> None:
    """Whoever reads a seed and a theme in a report looks here for what it dwells on."""
    rows = dict(re.findall(r"^\| \*([^*|]+)\* \| ([^|]+) \|$", PAGE, re.MULTILINE))
    assert rows == {theme.name: theme.summary for theme in THEMES.values()}


def test_the_page_counts_the_planted_bugs() -> None:
    """A number that nobody corrects is worse than none."""
    found = re.search(r"So (\d+) known mistakes", PAGE)
    assert found is not None and int(found.group(1)) == len(BUGS)


def test_the_page_has_figures_of_a_soak_of_a_tenth_of_a_year_at_least() -> None:
    """They are there to be renewed and not to be lost."""
    found = re.search(r"([\d.]+) years", PAGE)
    assert found is not None and float(found.group(1)) >= 0.1
    assert re.search(r"^\| quiet hours \| [\d,]+ \| [\d,.]+ \|", PAGE, re.MULTILINE)
