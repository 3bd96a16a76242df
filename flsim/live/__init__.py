"""Following runs while they go: how each stands, read from its files alone, as a page on localhost and as a text."""
