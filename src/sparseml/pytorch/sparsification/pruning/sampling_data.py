"""Old path: these names are those of :mod:`sparseml.pytorch.utils.batch_streams`."""

from sparseml.pytorch.utils.batch_streams import SamplingData, call_builder

__all__ = ["SamplingData", "call_builder"]
