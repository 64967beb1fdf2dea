"""Measurements of speed and memory, each against a named alternative in the same run."""
