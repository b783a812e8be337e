"""What the two GLUE scripts without a Trainer share: they train by accelerate."""
