"""The settings of a run: flags, keys of configuration files, ranges, and what they change."""

from sparseml.run.settings.flags import Flag, Group, Leaf, Settings, flag, leaves
from sparseml.run.settings.groups import CheckpointSettings, RunSettings, SweepSettings
from sparseml.run.settings.parser import parse, parser_for, with_dashes

__all__ = [
    "CheckpointSettings",
    "Flag",
    "Group",
    "Leaf",
    "RunSettings",
    "Settings",
    "SweepSettings",
    "flag",
    "leaves",
    "parse",
    "parser_for",
    "with_dashes",
]
