"""The manifest of a built dataset: sources, losses by stage and reason, and the content of the result."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestration.data.report.tally import ContentTally, DatasetTally
from orchestration.data.rows.reasons import RejectReason
from orchestration.settings.recipe import RecipeConfig

MANIFEST_VERSION = 1
FLOAT_DIGITS = 6
SETTINGS_OF_THE_MACHINE = ("raw", "out", "num_workers")
"""Where and how fast a recipe is built: left out, so that two builds of one dataset have one manifest."""
LEAKS = (RejectReason.LEAKED_IMAGE, RejectReason.LEAKED_QUESTION)
DUPLICATES = (
    RejectReason.DUPLICATE,
    RejectReason.NEAR_DUPLICATE,
    RejectReason.CONFLICTING_ANSWERS,
    RejectReason.TOO_MANY_OF_IMAGE,
)
_MEANINGS = {reason.value: reason.meaning for reason in RejectReason}


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeVersion:
    """Which code built a dataset."""

    package: str
    commit: str | None
    """Of the git repository; null where the code is installed."""
    digest: str
    """Of the source files that shape rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """License and files of one source."""

    license: str
    license_note: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    """Name of a raw file -> SHA-256 of it or of its listing; empty for drawn sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """One file of the result."""

    name: str
    """Relative to the dataset's folder."""
    role: str
    num_rows: int
    size_bytes: int
    sha256: str


def build_manifest(
    recipe: RecipeConfig,
    *,
    stages: Sequence[str],
    code: CodeVersion,
    sources: Mapping[str, SourceFacts],
    tally: DatasetTally,
    shards: Sequence[ShardFacts],
    times: Mapping[str, float],
) -> dict[str, Any]:
    """Return the content of manifest.json; equal inputs give equal files but for the key `times`.

    Args:
        recipe: Settings of the build.
        stages: In the order in which rows pass them, as `tally` and the rejected rows name them.
        code: Which code built it.
        sources: By name in the recipe.
        tally: Counts of all rows.
        shards: Files of the result, in order.
        times: What differs between two builds: seconds by stage, start and end.
    """
    settings = asdict(recipe)
    for name in SETTINGS_OF_THE_MACHINE:
        del settings[name]
    return {
        "version": MANIFEST_VERSION,
        "recipe": settings,
        "code": asdict(code),
        "sources": {
            name: {"adapter": recipe.sources[name].adapter, "role": recipe.sources[name].role, **asdict(facts)}
            for name, facts in sources.items()
        },
        "stages": list(stages),
        "funnel": _funnel(tally, stages),
        "rejected": _rejected(tally),
        "deduplication": {
            "duplicates": _reason_counts(tally, DUPLICATES),
            "leaks": _reason_counts(tally, LEAKS),
        },
        "result": {role: _content(content) for role, content in tally.content.items()},
        "difficulty": _difficulty(tally),
        "quotas": _quotas(recipe, tally),
        "shards": [asdict(shard) for shard in shards],
        "times": dict(times),
    }


def canonical_json(manifest: Mapping[str, Any]) -> str:
    """Return the text of a manifest in one form: sorted keys, floats to six digits, no NaN."""
    return json.dumps(_rounded(manifest), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        # Adding 0.0 turns -0.0 into 0.0.
        return round(value, FLOAT_DIGITS) + 0.0
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _funnel(tally: DatasetTally, stages: Sequence[str]) -> list[dict[str, Any]]:
    """Return one entry per role and source, with every stage that it entered; no row is lost between two stages."""
    losses: Counter[tuple[str, str, str]] = Counter()
    for (role, source, stage, _), count in tally.rejected.items():
        losses[role, source, stage] += count
    unknown = {stage for _, _, stage in tally.entered | losses} - set(stages)
    assert not unknown, f"stages {sorted(unknown)} are not among {stages}"
    funnel = []
    for role, source in sorted({(role, source) for role, source, _ in tally.entered | losses}):
        steps: list[dict[str, Any]] = []
        for stage in stages:
            key = (role, source, stage)
            if key not in tally.entered and key not in losses:
                continue
            rows_in = tally.entered[key]
            assert not steps or steps[-1]["out"] == rows_in, (
                f"{source}: {steps[-1]['out']} {role} rows left {steps[-1]['stage']}, and {rows_in} came to {stage}"
            )
            assert losses[key] <= rows_in, f"{source}: {stage} rejected {losses[key]} of {rows_in} {role} rows"
            steps.append({"stage": stage, "in": rows_in, "out": rows_in - losses[key]})
        funnel.append({"role": role, "source": source, "stages": steps})
    return funnel


def _rejected(tally: DatasetTally) -> list[dict[str, Any]]:
    return [
        {
            "role": role,
            "source": source,
            "stage": stage,
            "reason": reason,
            "meaning": _MEANINGS[reason],
            "count": count,
            "examples": [
                {"source_id": source_id, "detail": detail, "question": question}
                for source_id, detail, question in tally.examples[role, source, stage, reason]
            ],
        }
        for (role, source, stage, reason), count in sorted(tally.rejected.items())
    ]


def _reason_counts(tally: DatasetTally, reasons: Sequence[RejectReason]) -> dict[str, int]:
    counts = {reason.value: 0 for reason in reasons}
    for (_, _, _, reason), count in tally.rejected.items():
        if reason in counts:
            counts[reason] += count
    return counts


def _content(content: ContentTally) -> dict[str, Any]:
    mix: dict[str, dict[str, int]] = {}
    for (task, source), count in content.mix.items():
        mix.setdefault(task, {})[source] = count
    by = {name: dict(counts) for name, counts in content.by.items()}
    histograms = {name: asdict(histogram) for name, histogram in content.histograms.items()}
    years = content.by.get("chart_year", Counter())
    return {
        "num_rows": content.num_rows,
        "by": by,
        "mix": mix,
        "histograms": histograms,
        "chart_year_frac": years["year"] / years.total() if years else None,
    }


def _difficulty(tally: DatasetTally) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for (function, when, name), histogram in tally.difficulty.items():
        found.setdefault(function, {}).setdefault(when, {})[name] = asdict(histogram)
    return found


def _quotas(recipe: RecipeConfig, tally: DatasetTally) -> list[dict[str, Any]]:
    """Return wished and found rows of every quota; a source with parts counts with all of them."""
    train = tally.content.get("train", ContentTally())
    functions = train.by.get("function", Counter())
    found = [("function", name, wished, functions[name]) for name, wished in recipe.select.quotas.items()]
    for name, source in recipe.sources.items():
        if source.quota is not None:
            parts, label = train.by.get("source", Counter()), source.label or name
            rows = sum(count for part, count in parts.items() if part == label or part.startswith(f"{label}/"))
            found.append(("source", name, source.quota, rows))
    return [
        {"kind": kind, "name": name, "wished": wished, "found": rows, "missing": max(0, wished - rows)}
        for kind, name, wished, rows in sorted(found)
    ]
