"""Passes of static shapes, which a GPU captures as CUDA graphs and launches by one call."""
