"""The mathematics of composing pruned models from blocks that were tuned once."""
