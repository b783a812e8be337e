"""What other modifiers do to layers: watching activations, reparametrising weights."""
