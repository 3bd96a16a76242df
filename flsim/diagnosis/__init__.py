"""Runs that diagnose themselves: rows in, findings out."""
