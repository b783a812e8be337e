"""One run, whoever trains: settings, processes, checkpoints, resume, one shot, training."""
