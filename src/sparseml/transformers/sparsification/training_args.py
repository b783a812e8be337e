from sparseml.lazy import moved

__getattr__, __dir__ = moved(__name__, "sparseml.transformers.sparsification.trainer")
