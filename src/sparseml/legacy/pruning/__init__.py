"""The class forms that SparseML 1.x gave to masks, mask creators and scorers."""
