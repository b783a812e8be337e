"""Modifiers that prune by gradients sampled from data."""
