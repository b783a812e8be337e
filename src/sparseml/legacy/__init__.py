"""What SparseML 1.x offered and only code written for it asks for.

Nothing in the package imports from here: the old paths, such as ``sparseml.pytorch.utils.module``,
hand out these names when somebody asks for them (see :mod:`sparseml.lazy`).
"""
