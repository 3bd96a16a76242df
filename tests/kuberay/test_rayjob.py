"""The RayJob of docs/storage.md is what KubeRay's schema of one allows, and says what a run needs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema, which comes with ray, is not here")
ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((Path(__file__).parent / "rayjob.schema.json").read_text())


@pytest.fixture
def job() -> Any:
    """The file, read."""
    return yaml.safe_load((ROOT / "docs" / "kuberay" / "rayjob.yaml").read_text())


def test_the_file_is_a_rayjob(job: Any) -> None:
    jsonschema.validate(job, SCHEMA)


def test_a_misspelt_or_misplaced_setting_is_none(job: Any) -> None:
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    group["replica"] = group.pop("replicas")
    with pytest.raises(jsonschema.ValidationError, match="'replica' was unexpected"):
        jsonschema.validate(job, SCHEMA)
    group["replicas"] = str(group.pop("replica"))
    with pytest.raises(jsonschema.ValidationError, match="is not of type 'integer'"):
        jsonschema.validate(job, SCHEMA)


def test_it_has_a_worker_for_every_cpu_a_place_without_secrets_and_the_key_everywhere(job: Any) -> None:
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    pods = [cluster["headGroupSpec"]["template"]["spec"], group["template"]["spec"]]
    cpus = int(pods[1]["containers"][0]["resources"]["limits"]["cpu"]) * group["replicas"]
    assert f"engine.workers={cpus}" in spec["entrypoint"]
    assert "flsim resume" in spec["entrypoint"]
    assert "run_dir=$R" in spec["entrypoint"]
    assert "@" not in spec["entrypoint"]
    for pod in pods:
        (container,) = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "flsim-storage"}}]
        assert {"name": "XDG_CACHE_HOME", "value": container["volumeMounts"][0]["mountPath"]} in container["env"]


def test_its_ray_is_the_one_that_is_pinned(job: Any) -> None:
    assert f"ray=={job['spec']['rayClusterSpec']['rayVersion']}" in (ROOT / "constraints.txt").read_text()
