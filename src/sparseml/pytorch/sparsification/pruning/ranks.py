"""Old path: these names are those of :mod:`sparseml.pytorch.utils.distributed`."""

from sparseml.pytorch.utils.distributed import (
    add_up,
    any_rank,
    process_rank,
    transfer_device,
    world_size,
)

__all__ = ["add_up", "any_rank", "process_rank", "transfer_device", "world_size"]
