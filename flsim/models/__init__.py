"""Base models, stacked LoRA adapters, decoding."""
