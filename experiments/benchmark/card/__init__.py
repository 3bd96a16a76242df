"""The parts of `flsim benchmark gpu`: its plan, the sides, the process that computes, the record and the table."""
