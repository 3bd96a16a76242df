"""`python -m flsim` is the command `flsim`.

The command lives two floors up, in `experiments`, and flsim imports nothing from above; so it is started by its name,
as a shell would, and nothing here depends on it.
"""

import runpy

if __name__ == "__main__":
    runpy.run_module("experiments.command", run_name="__main__", alter_sys=True)
