"""Recipes written by programs, and the fields that modifiers of every framework share."""
