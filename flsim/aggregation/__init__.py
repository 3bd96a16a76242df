"""Aggregating LoRA adapters: their products without dense matrices, and what the server does with them."""
