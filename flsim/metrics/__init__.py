"""Measurements: rows as (total, weight) pairs, and what is read from them by user, by round and by task."""
