"""The mathematics of pruning: tensors in, tensors out.

Nothing here knows a module, an epoch, a recipe or a logger. A pruner is a point on four axes, each
of which is a module: the *score* (:mod:`.scores`), the *pattern* (:mod:`.patterns`), the *budget*
(:mod:`.budgets`) and the *schedule* (:mod:`.schedules`). They meet in :mod:`.select`, which decides
what goes, and :mod:`.masks`, which applies and stores the result.

>>> import torch
>>> from sparseml.pytorch.functional.budgets import Uniform
>>> from sparseml.pytorch.functional.patterns import Block
>>> from sparseml.pytorch.functional.scores import magnitude
>>> from sparseml.pytorch.functional.select import select
>>> weight = torch.tensor([[1.0, 2.0, 0.1, 0.2], [3.0, 4.0, 0.3, 0.4]])
>>> select([magnitude(weight)], Block(rows=2, cols=2), Uniform(), 0.5)[0].int().tolist()
[[1, 1, 0, 0], [1, 1, 0, 0]]
"""
