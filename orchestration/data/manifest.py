"""The manifest of a built dataset: sources, rejected rows by stage and reason, content; and the tally behind it."""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestration.data.chunks import Chunk
from orchestration.data.plan import SETTINGS_OF_THE_MACHINE, SourcePlan
from orchestration.data.sources.rows import Candidate, Rejected, RejectReason, candidate_from_json, rejected_from_json
from orchestration.settings.recipe import RecipeConfig, Role, SourceConfig
from orchestration.settings.seeds import derive_seed
from rewards.core.config import RewardConfig
from rewards.text.boxes import parse_boxes

MANIFEST_VERSION = 1
FLOAT_DIGITS = 6
NUM_EXAMPLES = 3
MAX_SAID = 20
"""Reasons of one filter and source that are listed, the most frequent; the others are summed."""
CARDS_PER_FUNCTION = 4
LAST_STAGE = {"guard": "deduplicate", "held_out": "measure", "train": "select"}
"""Last stage of the rows of each role."""
LEAKS = (RejectReason.LEAKED_IMAGE, RejectReason.LEAKED_QUESTION)
DUPLICATES = (
    RejectReason.DUPLICATE,
    RejectReason.NEAR_DUPLICATE,
    RejectReason.CONFLICTING_ANSWERS,
    RejectReason.TOO_MANY_OF_IMAGE,
)
_MEANINGS = {reason.value: reason.meaning for reason in RejectReason}

# Separate bins for the ends: rows that are always wrong or always right are not trained on.
REWARD_EDGES = (0.0, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
EDGES: Mapping[str, tuple[float, ...]] = {
    "mean": REWARD_EDGES,
    "pass_rate": REWARD_EDGES,
    "std": (0.0, 0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45),
    "prompt_tokens": (0, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192),
    "caption_words": (0, 10, 20, 30, 50, 75, 100, 150, 200, 300, 400),
    "box_area_frac": (0.0, 0.001, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 0.9),
    "longer_side": (0, 56, 112, 224, 336, 448, 672, 896, 1344, 1792, 2688, 3584),
}
"""Bins by name of histogram; bin i holds edges[i] <= value < edges[i + 1], the last one all values from its edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of the result."""

    name: str
    """Relative to the dataset's folder."""
    role: str
    num_rows: int
    size_bytes: int
    sha256: str


def bin_of(name: str, value: float) -> int:
    """Return the bin of a value in a histogram; values below the first edge are in the first bin.

    Example:
        >>> bin_of("caption_words", 10), bin_of("std", -1.0)
        (1, 0)
    """
    return max(0, bisect_right(EDGES[name], value) - 1)


Reason = tuple[str, str, str, str]
"""(role, source, stage, reason); of a filter `left_out/name/its reason`."""


@dataclass(slots=True)
class Tally:
    """Counts of a manifest, and a few rows to show; tallies can be merged in any order."""

    entered: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(role, source, stage) -> rows that entered the stage."""
    rejected: Counter[Reason] = field(default_factory=Counter)
    examples: dict[Reason, list[tuple[str, str, str]]] = field(default_factory=dict)
    """Up to NUM_EXAMPLES of (source_id, detail, question): the smallest, independent of the order of work."""
    mix: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(role, task, source) -> rows of the result."""
    by: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(role, name of a property, its value) -> rows of the result."""
    bins: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """(role, histogram, bin) -> rows, images or boxes of the result."""
    difficulty: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    """(reward function, before | after selection, histogram, bin) -> train rows."""
    kept_of: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(source of the recipe, whatever its label; role) -> rows after the last stage of the role."""
    refused_of: Counter[Reason] = field(default_factory=Counter)
    """(role, source of the recipe, stage, reason) -> rows; of a filter `left_out/name`, without its own reasons."""
    examples_of: dict[Reason, str] = field(default_factory=dict)
    """The first of such rows by its id, with what is wrong."""
    cards: dict[str, list[tuple[int, Candidate]]] = field(default_factory=dict)
    """Reward function -> (hash, row) of the rows to show: those with the smallest hashes."""

    def enter(self, stage: str, role: Role, source: str, num_rows: int = 1) -> None:
        """Count rows that enter a stage; `reject` counts those that it rejects."""
        self.entered[role, source, stage] += num_rows

    def reject(self, row: Rejected) -> None:
        """Count one rejected row."""
        key = (row.role, row.source, row.stage, row.counted_as)
        self.rejected[key] += 1
        self._keep_examples(key, [(row.source_id, row.detail, row.question)])

    def refuse(self, name: str, row: Rejected) -> None:
        """Count one rejected row of a source of the recipe."""
        key = (row.role, name, row.stage, "/".join(row.counted_as.split("/")[:2]))
        self.refused_of[key] += 1
        self._keep_example(key, f"{row.source_id}: {row.detail}")

    def measure(self, row: Candidate, function: str, when: str = "before") -> None:
        """Count the difficulty of a training row before or after selection; rows without one are ignored."""
        if row.difficulty is not None and row.role == "train":
            for name in ("mean", "pass_rate", "std"):
                self.difficulty[function, when, name, bin_of(name, getattr(row.difficulty, name))] += 1

    def select(self, row: Candidate, function: str) -> None:
        """Count one row of the result, which reward `function` scores."""
        properties = {
            "task": row.task,
            "source": row.source,
            "function": function,
            "license": row.license or "not stated",
            "stratum": row.stratum or "not measured",
            "answer_type": row.answer_type or "not stated",
            "images_per_row": str(len(row.images)),
        }
        values: list[tuple[str, float]] = [("longer_side", max(image.size)) for image in row.images]
        if row.prompt_tokens is not None:
            values.append(("prompt_tokens", row.prompt_tokens))
        if row.task == "match_mcq":
            properties["letter"] = row.answer
        elif row.task == "match_yesno":
            properties["yes_no"] = row.answer
        elif row.task == "chart":
            properties["chart_year"] = "year" if row.answer_type == "year" else "other"
        elif row.task == "open":
            values.append(("caption_words", len(row.answer.split())))
        elif row.task == "iou":
            boxes = [entry.box for entry in parse_boxes(row.answer) or [] if entry.box]
            properties["boxes_per_row"] = str(len(boxes))
            if row.images:
                width, height = row.images[0].size
                values += [("box_area_frac", (x2 - x1) * (y2 - y1) / (width * height)) for x1, y1, x2, y2 in boxes]
        self.mix[row.role, row.task, row.source] += 1
        self.by.update((row.role, name, value) for name, value in properties.items())
        self.bins.update((row.role, name, bin_of(name, value)) for name, value in values)
        self.measure(row, function, "after")

    def show(self, function: str, cards: Iterable[tuple[int, Candidate]]) -> None:
        """Keep the rows with the smallest hashes for the page."""
        merged = sorted([*self.cards.get(function, []), *cards], key=lambda card: card[0])
        self.cards[function] = merged[:CARDS_PER_FUNCTION]

    def merge(self, other: "Tally") -> None:
        """Add the counts of another part of the same dataset."""
        self.entered.update(other.entered)
        self.rejected.update(other.rejected)
        self.mix.update(other.mix)
        self.by.update(other.by)
        self.bins.update(other.bins)
        self.difficulty.update(other.difficulty)
        self.kept_of.update(other.kept_of)
        self.refused_of.update(other.refused_of)
        for reason, example in other.examples_of.items():
            self._keep_example(reason, example)
        for key, examples in other.examples.items():
            self._keep_examples(key, examples)
        for function, cards in other.cards.items():
            self.show(function, cards)

    def of_role(self, role: str, name: str) -> Counter[str]:
        """Return the rows of the result by the values of a property."""
        return Counter({value: count for (r, n, value), count in self.by.items() if (r, n) == (role, name)})

    def _keep_example(self, key: Reason, example: str) -> None:
        self.examples_of[key] = min(example, self.examples_of.get(key, example))

    def _keep_examples(self, key: Reason, examples: Sequence[tuple[str, str, str]]) -> None:
        self.examples[key] = sorted([*self.examples.get(key, []), *examples])[:NUM_EXAMPLES]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountTask:
    """A chunk to be counted by a worker."""

    chunk: Path
    reward: RewardConfig
    seed: int
    stages: tuple[str, ...]
    """Stages of this build, in order."""
    is_result: bool
    """Whether its rows are in the result; otherwise only its rejected rows count."""
    is_tried: bool
    """Whether its rows have the difficulty that selection uses."""


def count_chunk(task: CountTask) -> Tally:
    """Count one chunk."""
    chunk = Chunk.of(task.chunk)
    tally = Tally()
    for values in chunk.rejected():
        rejected = rejected_from_json(values)
        tally.reject(rejected)
        tally.refuse(chunk.origin["source"], rejected)
        _enter(tally, rejected.role, rejected.source, task.stages, rejected.stage)
    for values in chunk.rows() if task.is_result or task.is_tried else ():
        row = candidate_from_json(values)
        if task.is_result:
            tally.kept_of[chunk.origin["source"], row.role] += 1
            _enter(tally, row.role, row.source, task.stages, LAST_STAGE[row.role])
        if row.role == "guard":  # never graded, so no reward may know its task
            continue
        function = task.reward.route(row.task, row.source).function
        if task.is_tried:
            tally.measure(row, function)
        if task.is_result:
            tally.select(row, function)
            tally.show(function, [(derive_seed(task.seed, "page", row.role, row.sample_id), row)])
    return tally


def _enter(tally: Tally, role: Role, source: str, stages: Sequence[str], last: str) -> None:
    """Count a row in each stage up to `last`, where it was rejected or written."""
    for stage in stages:
        tally.enter(stage, role, source)
        if stage == last:
            return


def build_manifest(
    recipe: RecipeConfig,
    plans: Sequence[SourcePlan],
    *,
    stages: Sequence[str],
    code: Mapping[str, str | None],
    tally: Tally,
    shards: Sequence[Shard],
    times: Mapping[str, float],
) -> dict[str, Any]:
    """Return the content of manifest.json; equal inputs give equal files but for the key `times`.

    Args:
        recipe: Settings of the build.
        plans: Its sources.
        stages: Names of the stages in order, as in `tally`.
        code: Version of the package, commit (null for an installed package), digest of the code that determines rows.
        tally: Counts of all rows.
        shards: Files of the result, in order.
        times: Seconds by stage, start and end, which differ between two builds.
    """
    settings = asdict(recipe)
    if not recipe.filters:
        del settings["filters"]
    for name in SETTINGS_OF_THE_MACHINE:
        del settings[name]
    return {
        "version": MANIFEST_VERSION,
        "recipe": settings,
        "code": dict(code),
        "sources": {
            plan.name: {
                "adapter": plan.config.adapter,
                "role": plan.config.role,
                "license": plan.licence.name,
                "license_note": plan.licence.note,
                "files": dict(plan.files),
            }
            for plan in plans
        },
        "stages": list(stages),
        "funnel": _funnel(tally, stages),
        "rejected": _rejected(tally),
        "by_source": {name: _of_source(tally, name, source) for name, source in recipe.sources.items()},
        "deduplication": {
            "duplicates": _reason_counts(tally, DUPLICATES),
            "leaks": _reason_counts(tally, LEAKS),
        },
        "result": {role: _content(tally, role) for role in sorted({role for role, _, _ in tally.mix})},
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


def _funnel(tally: Tally, stages: Sequence[str]) -> list[dict[str, Any]]:
    """Return one entry per role and source with each stage that its rows entered; checks that no row is lost."""
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


def _of_source(tally: Tally, name: str, source: SourceConfig) -> dict[str, Any]:
    """Return what became of the rows of one source of the recipe; `held_out` is the same of its held-out share."""
    found = _of_role(tally, name, source.role)
    return {**found, "held_out": _of_role(tally, name, "held_out")} if source.held_out_share else found


def _of_role(tally: Tally, name: str, role: Role) -> dict[str, Any]:
    """Return what became of the rows of one source and role, most frequent reasons first."""
    counts = {key: count for key, count in tally.refused_of.items() if key[:2] == (role, name)}
    refused = [
        {
            "stage": stage,
            "reason": reason,
            "meaning": _MEANINGS[reason.partition("/")[0]],
            "count": count,
            "example": tally.examples_of[role, name, stage, reason],
        }
        for (_, _, stage, reason), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    kept = tally.kept_of[name, role]
    return {"role": role, "read": kept + sum(counts.values()), "kept": kept, "refused": refused}


def _rejected(tally: Tally) -> list[dict[str, Any]]:
    counts, examples = _listed_reasons(tally)
    return [
        {
            "role": role,
            "source": source,
            "stage": stage,
            "reason": reason,
            "meaning": _MEANINGS[reason.partition("/")[0]],
            "count": count,
            "examples": [
                {"source_id": source_id, "detail": detail, "question": question}
                for source_id, detail, question in examples[role, source, stage, reason]
            ],
        }
        for (role, source, stage, reason), count in sorted(counts.items())
    ]


def _listed_reasons(tally: Tally) -> tuple[Counter[Reason], dict[Reason, list[tuple[str, str, str]]]]:
    """Return counts and examples by reason; a filter may give a reason of its own for every row."""
    counts: Counter[Reason] = Counter()
    examples: dict[Reason, list[tuple[str, str, str]]] = {}
    listed: Counter[Reason] = Counter()
    for key, count in sorted(tally.rejected.items(), key=lambda item: (-item[1], item[0])):
        role, source, stage, reason = key
        name = "/".join(reason.split("/")[:2])
        listed[role, source, stage, name] += 1
        if reason != name and listed[role, source, stage, name] > MAX_SAID:
            key = (role, source, stage, f"{name}/other reasons")
        counts[key] += count
        examples[key] = sorted([*examples.get(key, []), *tally.examples[role, source, stage, reason]])[:NUM_EXAMPLES]
    return counts, examples


def rejection_lines(root: Path) -> list[str]:
    """Return a line for each source and reason of rejected rows of a built dataset; most rows first.

    Example: `own: 4 rows at normalise, reference_unearned (...)`.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for entry in json.loads((root / "manifest.json").read_text(encoding="utf-8"))["rejected"]:
        counts[entry["source"], f"{entry['stage']}, {entry['reason']} ({entry['meaning']})"] += entry["count"]
    return [f"{source}: {count} rows at {reason}" for (source, reason), count in counts.most_common()]


def _reason_counts(tally: Tally, reasons: Sequence[RejectReason]) -> dict[str, int]:
    counts = {reason.value: 0 for reason in reasons}
    for (_, _, _, reason), count in tally.rejected.items():
        if reason in counts:
            counts[reason] += count
    return counts


def _content(tally: Tally, role: str) -> dict[str, Any]:
    mix: dict[str, dict[str, int]] = {}
    for (of_role, task, source), count in tally.mix.items():
        if of_role == role:
            mix.setdefault(task, {})[source] = count
    names = {name for of_role, name, _ in tally.by if of_role == role}
    histograms = {name for of_role, name, _ in tally.bins if of_role == role}
    years = tally.of_role(role, "chart_year")
    return {
        "num_rows": sum(sum(sources.values()) for sources in mix.values()),
        "by": {name: dict(tally.of_role(role, name)) for name in names},
        "mix": mix,
        "histograms": {name: _histogram(name, tally.bins, role) for name in histograms},
        "chart_year_frac": years["year"] / years.total() if years else None,
    }


def _histogram(name: str, bins: Mapping[Any, int], *path: str) -> dict[str, Any]:
    counts = [bins.get((*path, name, number), 0) for number in range(len(EDGES[name]))]
    return {"edges": EDGES[name], "counts": counts}


def _difficulty(tally: Tally) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for function, when, name, _ in tally.difficulty:
        found.setdefault(function, {}).setdefault(when, {})[name] = _histogram(name, tally.difficulty, function, when)
    return found


def _quotas(recipe: RecipeConfig, tally: Tally) -> list[dict[str, Any]]:
    """Return wanted and found rows of each quota; a source counts with all its parts."""
    functions, parts = tally.of_role("train", "function"), tally.of_role("train", "source")
    found = [("function", name, requested, functions[name]) for name, requested in recipe.select.quotas.items()]
    for name, source in recipe.sources.items():
        if source.quota is not None:
            label = source.label or name
            rows = sum(count for part, count in parts.items() if part == label or part.startswith(f"{label}/"))
            found.append(("source", name, source.quota, rows))
    return [
        {"kind": kind, "name": name, "requested": requested, "found": rows, "missing": max(0, requested - rows)}
        for kind, name, requested, rows in sorted(found)
    ]
