"""The property tests, with many more examples than `make test` gives them: configs, data files, responses."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from experiments.torture.processes import ROOT
from experiments.torture.trial import LOST, SKIPPED, SURVIVED, Ground, Trial


def properties(ground: Ground) -> Iterator[Trial]:
    """Whatever is written into configs, data files and responses gives a result or one sentence, never a traceback."""
    if not (ROOT / "tests").is_dir():
        yield Trial("property tests", "all", SKIPPED, "they come with a checkout, not with the package")
        return
    report = ground.root / "properties.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "torture", "-n", "2", f"--junitxml={report}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not report.is_file():
        yield Trial("property tests", "all", LOST, (done.stdout + done.stderr).strip()[-300:])
        return
    for case in ElementTree.parse(report).iter("testcase"):
        failed = case.find("failure") is not None or case.find("error") is not None
        if case.find("skipped") is not None:
            continue
        yield Trial("property tests", str(case.get("name")), LOST if failed else SURVIVED)
