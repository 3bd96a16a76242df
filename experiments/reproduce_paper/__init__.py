"""The paper's question on the built-in world: learn and ask together, or otherwise? All methods, tuned alike."""
