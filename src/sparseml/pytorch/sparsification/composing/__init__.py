"""Modifiers that tune pruned blocks, and put models together from them; and what they share."""
