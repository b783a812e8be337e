"""Units of Transformers that fade away under gates: dimensions of the residual stream, channels
inside of heads, and neurons.

:mod:`.discovery` finds them without names, :mod:`.gates` multiplies them by gates that no state
dict shows, and :mod:`.removal` takes them out.
"""

from sparseml.pytorch.units.gated.discovery import gated_units
from sparseml.pytorch.units.gated.gates import Gates
from sparseml.pytorch.units.gated.kinds import GatedGroups, GatedUnits, Site
from sparseml.pytorch.units.gated.removal import remove_gated

__all__ = ["GatedGroups", "GatedUnits", "Gates", "Site", "gated_units", "remove_gated"]
