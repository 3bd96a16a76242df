"""How the models that ship were made, and the reader of real questions."""
