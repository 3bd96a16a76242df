"""Runs with real models and real data."""
