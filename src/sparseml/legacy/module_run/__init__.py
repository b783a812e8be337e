"""Training, testing and timing a module over batches, without a trainer of one's own."""
