"""Modifiers that grow some of the parameters while the others are sparse."""
