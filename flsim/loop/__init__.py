"""The round loop: from a config to a finished run."""
