"""Second-order pruning: Fisher matrices, what removing weights costs, and making up for them."""
