"""The settings of a run: what they are, how they are read, and the plug-ins that they name."""
