"""Strategies side by side on one fleet: `python -m experiments.compare_strategies`."""
