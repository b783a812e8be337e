"""Where the numbers of a run go, one kind of destination a file; see ``utils.logger``."""
