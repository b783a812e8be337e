"""Modifiers under which whole units fade away and are removed."""
