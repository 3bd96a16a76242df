"""The same run on a real federation: a grid over Flower's own, what a node does, and the app around both."""
