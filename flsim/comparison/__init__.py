"""Runs side by side: what may be compared, measures of each, differences by user and seed, and a page of them."""
