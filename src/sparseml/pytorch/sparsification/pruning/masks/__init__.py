"""Masks beside a model, and what they do to weights, gradients and optimizers."""
