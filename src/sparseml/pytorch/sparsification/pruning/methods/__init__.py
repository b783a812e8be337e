"""How it is decided what goes."""
