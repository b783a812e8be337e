"""What fairseq imports for ``--user-dir``; it puts the folder above this one on ``sys.path``."""

from sparseml.fairseq.hooks import install

install()
