"""Commands that compose clients, strategies and the engine."""
