"""Which code makes what: the digest of a stage's own files, so that a changed rule is never answered from the cache."""

import functools
import importlib.metadata
from pathlib import Path

from orchestration.data.chunks import code_digest, digest_of

ROOT = Path(__file__).parents[2]
COMMON = ("chunks.py", "records.py", "reasons.py", "rows.py", "stages.py")
LIBRARIES = ("numpy", "pillow", "pyarrow")
STAGE_FILES = {
    "read": ("sources", "read.py", "files.py", "../demo"),
    "validate": ("validate.py", "images.py", "containers.py", "fingerprints.py", "row_stages.py"),
    "normalise": ("normalise.py", "verify.py", "row_stages.py", "../../rewards"),
    "deduplicate": ("deduplicate.py", "near_pairs.py", "row_index.py", "row_keys.py", "fingerprints.py"),
    "measure": ("measure.py", "row_stages.py", "../../rollout/prompt.py"),
    "sample": ("sample.py", "../../rewards", "../../rollout", "../handoff.py"),
    "select": ("select.py",),
    "write": ("write.py", "publish.py", "manifest.py", "page.py", "histograms.py", "../../rollout/schema.py"),
}
"""Files and folders by stage, relative to this one."""


@functools.cache
def stage_code(stage: str) -> str:
    """Give the digest of a stage's files and of the libraries under them."""
    here = Path(__file__).parent
    versions = [importlib.metadata.version(name) for name in LIBRARIES]
    files = [here / name for name in (*COMMON, *STAGE_FILES[stage])]
    return digest_of(code_digest(files), versions)
