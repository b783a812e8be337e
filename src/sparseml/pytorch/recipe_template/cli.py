"""Old path: :mod:`sparseml.legacy.recipes.template`."""

from sparseml.lazy import moved

__getattr__, __dir__ = moved(__name__, "sparseml.legacy.recipes.template")

if __name__ == "__main__":
    __getattr__("main")()
