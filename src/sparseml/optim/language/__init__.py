"""What a recipe's text says: read, checked, evaluated, and made into what its tags name."""
