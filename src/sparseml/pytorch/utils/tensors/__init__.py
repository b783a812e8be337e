"""Looking into tensors: nested collections of them, their zeros, parts that processes share."""
