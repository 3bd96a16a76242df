"""A device: what it keeps, how a pack of them learns, and what all devices of a worker share."""
