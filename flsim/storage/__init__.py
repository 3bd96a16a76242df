"""Runs that lie in an object store: addresses, the store itself, and the copy of a run that a machine works in."""
