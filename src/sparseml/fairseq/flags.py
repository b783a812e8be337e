"""Flags of a recipe, for every command, task and model of fairseq."""

from __future__ import annotations

from dataclasses import field, fields, make_dataclass
from typing import Optional

FLAGS = {
    "sparseml_recipe": "recipe to train by: a file, or recipe:NAME",
    "sparseml_recipe_args": "values for variables of the recipe: JSON, or name=value,...",
    "sparseml_initial_masks": "masks to begin with: a masks.safetensors, or the folder that has it",
    "sparseml_output": "folder of the run to be made, for recipe, metrics and a report",
}


def add_flags() -> None:
    """Give fairseq's common settings a field for each flag.

    So they are flags and keys of configurations, reach processes that fairseq starts, and stand in
    its checkpoints, where a fairseq without them passes them over.
    """
    from fairseq.dataclass.configs import CommonConfig
    from fairseq.dataclass.initialize import hydra_init

    # fairseq reads the types of fields, which must be types and not their names
    told = [
        (name, Optional[str], field(default=None, metadata={"help": text}))  # noqa: UP045
        for name, text in FLAGS.items()
    ]
    for one in fields(make_dataclass("Flags", told)):
        CommonConfig.__dataclass_fields__[one.name] = one
        CommonConfig.__annotations__[one.name] = one.type
        setattr(CommonConfig, one.name, None)
    hydra_init()
