"""What a structured pruning modifier does with the units that it finds by itself."""
