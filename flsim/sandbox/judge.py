"""The process that judges code: it knows the tests, starts the cells, and tells the worker what came of each trial.

Started by `flsim.problems.code` as `python -m flsim.sandbox.judge NAME` with the name of a sandbox.
"""

import resource
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from flsim.sandbox.backends import SANDBOXES
from flsim.sandbox.probes import failures
from flsim.sandbox.serving import serve
from flsim.sandbox.trial import Limits, try_code

_MEMORY = 4 << 30  # bytes of address space: what values from the code may grow to


def _begin(name: str) -> Callable[[Any], Any]:
    sandbox = SANDBOXES[name]()  # before the limit, which the zygote would inherit
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.RLIM_INFINITY))

    def answer(request: dict[str, Any]) -> Any:
        if request["do"] == "probe":
            return failures(sandbox)
        return asdict(try_code(sandbox, request["code"], request["tests"], Limits(**request["limits"])))

    return answer


if __name__ == "__main__":
    serve(lambda: _begin(sys.argv[1]))
