"""Reserved words of recipes."""

from __future__ import annotations

ALL_TOKEN = "__ALL__"
"""Stands for every parameter or layer of a model."""

ALL_PRUNABLE_TOKEN = "__ALL_PRUNABLE__"
"""Stands for the weights of every prunable layer of a model."""

STRUCTURED_TOKEN = "__STRUCTURED__"
"""Stands for all neurons, heads and channels that can be removed from a model."""

FROM_PARAM_TOKEN = "__FROM_PARAM__"
"""Stands for a value that is measured on each parameter."""

RECIPE_METADATA_KEY = "__metadata__"
FRAMEWORK_METADATA_KEY = "framework_metadata"
PYTORCH_FRAMEWORK = "pytorch"
