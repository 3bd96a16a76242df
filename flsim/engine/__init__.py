"""Grids that carry messages to clients, and the store of what each device keeps."""
