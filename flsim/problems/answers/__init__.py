"""How an answer is found in what a response says and written in one way, so that equal answers are equal texts."""
