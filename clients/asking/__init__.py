"""Rules that say at test time which of a device's questions go to the cloud, on top of whatever it has learned."""
