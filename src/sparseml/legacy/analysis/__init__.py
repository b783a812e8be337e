"""Descriptions of a model's layers: sizes, sparsity, activations, cost."""
