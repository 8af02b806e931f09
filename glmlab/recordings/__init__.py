"""Recordings: the noun, and its file in and out; by name in :mod:`glmlab.recorded`."""
