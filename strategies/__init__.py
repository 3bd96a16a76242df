"""Strategies: how the server turns updates into the next adapter."""
