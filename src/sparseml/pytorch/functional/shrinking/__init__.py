"""The mathematics of selectively regularized pruning (SRP): whole units that fade away.

A *unit* (a dimension of the residual stream, a channel of a head, a neuron) has a gate :math:`c`, a
factor that is 1 at first. :mod:`.rates` says how many units go and how their gates fall,
:mod:`.choosing` which ones go, :mod:`.norms` how a normalisation leaves out what fades, and
:mod:`.counting` what is left of a Transformer.
"""
