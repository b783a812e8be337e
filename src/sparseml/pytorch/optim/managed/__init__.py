"""What a manager does with its modifiers: hand them a model, and keep how far they have come."""
