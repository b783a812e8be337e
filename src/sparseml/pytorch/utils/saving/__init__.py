"""Files of weights, checkpoints, and what else a run needs to go on: whole or absent."""
