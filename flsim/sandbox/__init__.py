"""Code that nobody trusts runs here: the judge, which holds the tests, and the cells, which hold the code."""
