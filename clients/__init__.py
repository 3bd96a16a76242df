"""Client algorithms: what one device does in a round."""
