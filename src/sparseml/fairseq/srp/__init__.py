"""The names and flags of the first implementation of SRP, for fairseq's commands."""
