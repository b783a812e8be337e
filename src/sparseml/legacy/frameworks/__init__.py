"""What a framework, PyTorch being the only one, can do on this machine, as data."""
