"""Reading a source as the data engine does: find its parts, read each."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration.data.sources.registry import find_adapter
from orchestration.data.sources.rows import BadRow, RawRow
from orchestration.settings.recipe import Role, SourceConfig

GOLDEN = Path(__file__).parents[3] / "golden" / "sources"
PNG = (GOLDEN / "jsonl" / "pictures" / "0.png").read_bytes()


def read(name: str, root: Path, split: str = "train", role: Role = "train", **options: Any) -> list[RawRow | BadRow]:
    adapter = find_adapter(name)
    config = SourceConfig(adapter=name, path=str(root), split=split, role=role, options=options)
    return [row for part in adapter.parts(root, config) for row in adapter.rows(root, part, config)]


def good(rows: list[RawRow | BadRow]) -> list[RawRow]:
    return [row for row in rows if isinstance(row, RawRow)]


def bad(rows: list[RawRow | BadRow]) -> list[tuple[str, str]]:
    return [(row.source_id, row.reason.value) for row in rows if isinstance(row, BadRow)]


def write_table(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return path


def cell(data: bytes | None = PNG, path: str | None = None) -> dict[str, Any]:
    """An image as hub datasets store it."""
    return {"bytes": data, "path": path}
