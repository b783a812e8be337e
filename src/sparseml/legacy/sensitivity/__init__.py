"""How a model reacts to pruning its layers one by one, and to learning rates."""
