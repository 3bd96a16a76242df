"""Studies: many runs of one question, what is missing and never what is finished, then what they say side by side."""
