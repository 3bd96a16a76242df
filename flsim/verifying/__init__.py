"""Is a completion right? Verifiers of real tasks: exact, numeric, maths, choice, and code in a sandbox."""
