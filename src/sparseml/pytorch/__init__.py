"""Sparsification of PyTorch models."""
