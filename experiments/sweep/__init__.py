"""Run a config with every combination of methods, settings and seeds."""
