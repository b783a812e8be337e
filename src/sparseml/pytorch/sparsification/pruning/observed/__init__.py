"""Pruning by what is observed of the gradients of training."""
