"""Flower's side: messages, the grids that carry them to the devices, and what a strategy may offer."""
