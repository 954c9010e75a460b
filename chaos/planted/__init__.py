"""Known mistakes, to be patched into the production engines one at a time: whoever judges worlds must find each."""

from chaos.planted.catalogue import BUGS
from chaos.planted.values import Change, PlantedBug

__all__ = ["BUGS", "Change", "PlantedBug"]
