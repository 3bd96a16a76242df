"""The process that judges code: it knows the tests, starts the cells, and tells the worker what came of each trial.

Started by `flsim.verifying.code` as `python -m flsim.verifying.sandbox.judge NAME` with the name of a sandbox.
"""

import resource
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from flsim.verifying.sandbox.backends import SANDBOXES
from flsim.verifying.sandbox.probes import failures
from flsim.verifying.sandbox.trial import Limits, try_code
from flsim.verifying.serving import serve

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
