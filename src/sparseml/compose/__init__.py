"""Many pruned models for little more than the price of one.

Models that prune the same part of one origin in the same way share that part: it is pruned once,
tuned once against what the origin makes of the same inputs, and put into each of them. A plan
(:mod:`~sparseml.compose.planning`) names the distinct blocks, a store keeps them, and each model is
put together from them and fine-tuned briefly.
"""
