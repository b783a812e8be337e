"""Gradients sampled from data, on one process or several."""
