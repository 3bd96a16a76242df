"""The report of a run: summary, figures, page and table, read from its rows alone."""
