"""Rows of a user's own through the stages that read and check them: by a mapping, and by the path alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestration.data.normalise import ReferenceCheck, normalise
from orchestration.data.read import full_source, read_image
from orchestration.data.sources.registry import find_adapter
from orchestration.data.sources.rows import BadRow, Candidate, RawRow, Refused, RejectReason
from orchestration.data.validate import validate
from orchestration.inputs.own_data import with_own_data
from orchestration.settings.composition import compose
from orchestration.settings.experiment import ExperimentConfig, build_settings
from orchestration.settings.recipe import RecipeConfig, SourceConfig
from tests.unit.data.pictures import encoded, picture
from tests.unit.data.sources.reading import write_table

Asked = Candidate | tuple[RejectReason, str]
"""A row as it will be asked, or why it is left out: reason and detail."""


def draw(*paths: Path, width: int = 64, height: int = 48) -> None:
    """Draw a picture at each path, no two alike."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "JPEG" if path.suffix in (".jpg", ".jpeg") else "PNG"
        path.write_bytes(encoded(picture(width, height, seed=sum(str(path).encode())), kind))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as Parquet, as a JSON array, or as JSON lines, by the ending of the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        return write_table(path, [dict(row) for row in rows])
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(json.dumps(rows) if path.suffix == ".json" else lines, encoding="utf-8")
    return path


def by_mapping(
    root: Path, mapping: Mapping[str, Any], *settings: str, adapter: str = "jsonl", **options: Any
) -> list[Asked]:
    """Read a folder by a mapping of the recipe; `settings` are of the command line."""
    source = SourceConfig(adapter=adapter, path=str(root), options={**options, "mapping": mapping})
    return _asked(source, build_settings(compose(list(settings))))


def by_path(path: Path, *settings: str) -> list[Asked]:
    """Read what `data.train=PATH` names, with nothing said of its columns but by `settings`."""
    config = with_own_data(build_settings(compose([f"data.train={path}", *settings])))
    assert config.data.recipe is not None
    (source,) = config.data.recipe.sources.values()
    return _asked(source, config)


def _asked(source: SourceConfig, config: ExperimentConfig) -> list[Asked]:
    """Take the rows of a source through read, validate, normalise and the proof of their references."""
    recipe = config.data.recipe or RecipeConfig(name="own", seed=0, sources={})
    adapter, root = find_adapter(source.adapter), Path(str(source.path))
    found: list[Asked] = []
    with ReferenceCheck(config.reward) as references:
        for part in adapter.parts(root, source):
            for row in adapter.rows(root, part, source):
                try:
                    found.append(_checked(row, root, recipe, references))
                except Refused as refused:
                    found.append((refused.reason, refused.detail))
    return found


def _checked(row: RawRow | BadRow, root: Path, recipe: RecipeConfig, references: ReferenceCheck) -> Asked:
    if isinstance(row, BadRow):
        return row.reason, row.detail
    data = [read_image(root, image, recipe.limits.max_image_bytes, recipe.image_roots)[0] for image in row.images]
    checked = validate(row, data, recipe.limits)
    images = [image.stored(image_id="", chunk="", index=place) for place, image in enumerate(checked)]
    candidate = normalise(
        row,
        images,
        source=full_source("own", row.part),
        role="train",
        license="",
        config=recipe.normalise,
        limits=recipe.limits,
        seed=recipe.seed,
    )
    references.check(candidate)
    return candidate


def both(root: Path, rows: list[dict[str, Any]], mapping: dict[str, Any], *settings: str) -> list[list[Asked]]:
    """Rows as they are asked by a mapping, and with nothing said of their columns."""
    file = write_rows(root / "rows.jsonl", rows)
    return [by_mapping(root, mapping, *settings), by_path(file, *settings)]


def kept(asked: Asked) -> Candidate:
    assert isinstance(asked, Candidate), asked
    return asked


def reason(asked: Asked) -> str:
    assert not isinstance(asked, Candidate)
    return asked[0].value


def size(row: Candidate) -> list[tuple[int, int]]:
    return [image.size for image in row.images]
