"""Old path: :mod:`sparseml.legacy.sensitivity.boosting`."""

from sparseml.lazy import lazy_names

_HOMES = {
    "sparseml.legacy.sensitivity.boosting": "LayerBoostResults ModuleASOneShootBooster",
    "sparseml.pytorch.utils.layer_tracking": "ASLayerTracker",
}
__all__ = [*" ".join(_HOMES.values()).split()]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
