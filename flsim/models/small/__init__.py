"""A small Llama by hand: its passes in few calls, for the built-in models and others of their size on a CPU."""
