"""Stages of the server: what it does with the adapter after the strategy has aggregated."""
