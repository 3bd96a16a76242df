"""One file per kind of data set: how its rows become items, which files it expects, and where to get them."""
