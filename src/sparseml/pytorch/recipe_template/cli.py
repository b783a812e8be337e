"""Old path: :mod:`sparseml.legacy.recipes.template_command`."""

from sparseml.lazy import moved

__getattr__, __dir__ = moved(__name__, "sparseml.legacy.recipes.template_command")

if __name__ == "__main__":
    __getattr__("main")()
