"""Pure maths of the learning: advantages, losses, the dual variable, the optimizer."""
