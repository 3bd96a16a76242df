"""Readers of known data sets, a file per kind."""
