"""The mask API from before modifiers had their own."""
