"""What recipes say to pruning modifiers, checked."""
