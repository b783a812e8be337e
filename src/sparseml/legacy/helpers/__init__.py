"""Small functions on devices, layers, tensors, lists, paths and files."""
