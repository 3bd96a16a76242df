"""A problem, the built-in families of problems, and the verifiers that say whether an answer is right."""
