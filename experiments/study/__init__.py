"""Studies: many runs of one question, what is missing and never what is finished, then what they say side by side."""

STUDIES = ("paper", "strategies", "real_outcomes", "writers", "partitions", "teachers", "systems", "modes")
"""Studies that are planned already, each in a module of its name."""
