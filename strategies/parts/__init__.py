"""The parts of a strategy: who learns, how much say each has, how updates become one, and the step."""
