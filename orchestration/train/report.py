"""A run folder as one self-contained HTML page: scores, curves, faults, and completions before and after training."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

from markupsafe import Markup

from orchestration.page.curves import curves_svg, held_out_svg
from orchestration.page.figures import images_svg, render
from orchestration.storage.faults import Fault, read_faults
from orchestration.storage.files import read_json_lines, whole_file
from orchestration.storage.run_folder import RunFolder, read_before_after, read_config
from orchestration.train.failures import count_failed, read_failed
from orchestration.train.tracking import read_held_out, read_metrics
from orchestration.workers.answers import drawable_boxes
from rewards.core.base import RewardRequest
from rewards.core.config import FormatConfig

NUM_REASONS = 5
KINDS = ("sampled", "greedy")


def write_report(folder: RunFolder) -> None:
    """Write report.html from what the run recorded; parts that are not there yet are left out."""
    before, after = read_before_after(folder)
    metrics, held_out = read_metrics(folder), read_held_out(folder)
    positions, reasons = _positions(folder)
    names = sorted({key.rpartition("/")[0] for record in held_out for key in record if key.rpartition("/")[2] in KINDS})
    has_curves = len(held_out) > 1
    page = render(
        "run.html",
        title=f"Mixed-R1 run {folder.root.name}",
        name=folder.root.name,
        num_steps=len(metrics),
        scores=_scores(before, after) if before and after else [],
        held_out_curves=held_out_svg(held_out) if has_curves else "",
        held_out_names=[name.removeprefix("held_out/") for name in names],
        held_out_rows=[_held_out_row(record, names) for record in held_out] if has_curves else [],
        curves=curves_svg(metrics) if metrics else "",
        positions=positions,
        reasons=reasons,
        failed=_failed(folder),
        faults=_faults(folder),
        after=_examples(after, folder),
        before=_examples(before, folder),
    )
    with whole_file(folder.report) as partial:
        partial.write_text(page)


def _scores(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, list[list[object]]]]:
    tables = [("reward function", _score_rows(before["families"], after["families"]))]
    if len(after.get("sources", {})) > 1:
        tables.append(("source", _score_rows(before["sources"], after["sources"])))
    return tables


def _score_rows(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[list[object]]:
    return [
        [
            name,
            a["num_samples"],
            f"{b['sampled']:.3f} ± {b['sampled_se']:.3f}",
            f"{a['sampled']:.3f} ± {a['sampled_se']:.3f}",
            _change(a["sampled"] - b["sampled"]),
            f"{b['greedy']:.3f}",
            f"{a['greedy']:.3f}",
            _change(a["greedy"] - b["greedy"]),
            f"{b['format']:.2f}",
            f"{a['format']:.2f}",
        ]
        for name, a in after.items()
        if (b := before.get(name)) is not None
    ]


def _change(value: float) -> Markup:
    return Markup('<span class="{}">{:+.3f}</span>').format("up" if value > 0 else "down", value)


def _held_out_row(record: Mapping[str, float], names: Sequence[str]) -> list[object]:
    cells = (" / ".join(f"{record.get(f'{name}/{kind}', nan):.3f}" for kind in KINDS) for name in names)
    return [record["step"], *cells]


def _positions(folder: RunFolder) -> tuple[Counter[str], list[tuple[str, int]]]:
    """Count the positions of the prompt stream by fate, and the commonest reasons of those that were dropped."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    fates = ("trained", "replaced", "dropped")
    for entry in read_json_lines(folder.ledger, *fates):
        counts.update({fate: len(entry[fate]) for fate in fates})
        reasons.update(reason for _, reason in entry["dropped"])
    return counts, reasons.most_common(NUM_REASONS)


def _failed(folder: RunFolder) -> list[list[object]]:
    """Return one row per reward function and reason: number of completions without a reward, and the last cause."""
    found = read_failed(folder.failures)
    causes = {(one.function, one.reason): one.causes[-1] for one in found}
    return [[*key, count, Markup("<code>{}</code>").format(causes[key])] for key, count in count_failed(found).items()]


def _faults(folder: RunFolder) -> list[list[object]]:
    """Return one row per role: number of faults, the actor that failed most often, and the last cause."""
    by_role: dict[str, list[Fault]] = defaultdict(list)
    for fault in read_faults(folder.faults):
        by_role[fault.role].append(fault)
    return [[role, len(found), _most_frequent_actor(found), found[-1].cause] for role, found in sorted(by_role.items())]


def _most_frequent_actor(faults: Sequence[Fault]) -> str:
    [(index, count)] = Counter(fault.index for fault in faults).most_common(1)
    return f"number {index}, {count} times"


def _examples(evaluation: Mapping[str, Any], folder: RunFolder) -> list[dict[str, Any]]:
    """Return the recorded examples with their images; grounding samples get boxes."""
    if not evaluation.get("examples"):
        return []
    settings = read_config(folder)
    coord_mode = settings["model"]["coord_mode"] or "pixel"  # as ModelConfig.box_frame
    form = FormatConfig(**settings.get("reward", {}).get("format", {}))
    return [{**example, "pictures": _pictures(example, coord_mode, form)} for example in evaluation["examples"]]


def _pictures(example: Mapping[str, Any], coord_mode: str, form: FormatConfig) -> list[Markup]:
    images = example["images"]
    sizes = tuple((image["width"], image["height"]) for image in images)
    request = RewardRequest(
        task=example["task"],
        question=example["question"],
        response=example["greedy"],
        answer=example["answer"],
        image_sizes=sizes,
        image_input_sizes=tuple((image["input_width"], image["input_height"]) for image in images),
        coord_mode=coord_mode,
    )
    boxes = drawable_boxes(request, form) if example["family"] == "grounding" else {}
    return images_svg([(image["data"], size) for image, size in zip(images, sizes, strict=True)], **boxes)
