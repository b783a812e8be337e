"""Grow-and-prune as a chain of training runs, each a process of its own.

:mod:`.plan` makes a recipe for every run of one description, :mod:`.launcher` starts them one after
the other (or, in parallel, a worker for every partition, whose weights :mod:`.merge` puts together)
and :mod:`.manifest` keeps what has become of each. :mod:`.profiles` reads the step files of older
runs.
"""
