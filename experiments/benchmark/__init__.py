"""Measurements of speed and scale, one module each; `python -m experiments.benchmark --help` lists them."""
