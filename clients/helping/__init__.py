"""How an asking device is helped, a file a mode: it gets an answer, a hint, or works one out with the cloud."""
