"""The process that judges code: it knows the tests, starts the cells, and tells the worker what came of each trial.

Started by `flsim.problems.code` as `python -m flsim.sandbox.judge NAME` with the name of a sandbox.
"""

import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from flsim.sandbox.asserts import subjects
from flsim.sandbox.backends import SANDBOXES
from flsim.sandbox.probes import failures
from flsim.sandbox.program import as_function
from flsim.sandbox.serving import serve
from flsim.sandbox.solution import solution_in
from flsim.sandbox.trial import REFUSED, Limits, Outcome, try_code

_MEMORY = 4 << 30  # bytes of address space: what values from the code may grow to


def _begin(name: str) -> Callable[[Any], Any]:
    sandbox = SANDBOXES[name]()  # before the limit, which the zygote would inherit
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.RLIM_INFINITY))

    def answer(request: dict[str, Any]) -> Any:
        if request["do"] == "probe":
            return failures(sandbox)
        limits = Limits(**request["limits"])
        code = solution_in(request["text"], [] if request["program"] else subjects(request["tests"]), request["head"])
        if len(code) > limits.code_chars:
            return asdict(Outcome(REFUSED, f"{len(code)} characters of code; {limits.code_chars} are allowed"))
        outcome = try_code(sandbox, as_function(code) if request["program"] else code, request["tests"], limits)
        return asdict(replace(outcome, code=code))

    return answer


if __name__ == "__main__":
    serve(lambda: _begin(sys.argv[1]))
