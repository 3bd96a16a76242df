"""Real checkpoints, data sets and clouds: the whole path in small, with stand-ins for what costs money."""
