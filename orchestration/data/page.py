"""HTML page of a built dataset: mixture, rows by stage, difficulty, lengths, licences, quotas, example rows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from orchestration.data.manifest import REWARD_EDGES
from orchestration.page.figures import colours_of, data_uri, histogram_svg, images_svg, render, stacked_bars_svg
from rewards.text.boxes import parse_boxes
from rollout.records import Sample, readable

MAX_ANSWER_CHARS = 600
NUM_VALUES = 12
"""Values of a property that a table lists; the others are summed."""
LENGTHS = {
    "prompt_tokens": "prompt tokens",
    "caption_words": "words of a caption",
    "box_area_frac": "share of the image in a box",
    "longer_side": "longer side of an image, pixels",
}
BALANCES = {
    "letter": "letter of the answer",
    "yes_no": "yes or no",
    "answer_type": "answer type",
    "stratum": "stratum",
    "boxes_per_row": "boxes of a row",
    "images_per_row": "images of a row",
}
DIFFICULTIES = {"mean": "mean reward", "pass_rate": "share of right completions", "std": "deviation"}


def dataset_page(manifest: Mapping[str, Any], examples: Sequence[Sample]) -> str:
    """Return the page of a dataset; sections without numbers are omitted.

    Args:
        manifest: Content of manifest.json.
        examples: Rows to show, with their images.
    """
    stages = manifest["stages"]
    return render(
        "dataset.html",
        title=f"Dataset {manifest['recipe']['name']}",
        headline=_headline(manifest),
        roles=[(role, _content(content)) for role, content in sorted(manifest["result"].items(), reverse=True)],
        quotas=[_quota(quota) for quota in manifest["quotas"]],
        funnel_heads=["source", "rows in", *(f"after {stage}" for stage in stages)],
        funnel=[_funnel(entry, stages) for entry in manifest["funnel"]],
        rejections=[_rejection(entry) for entry in sorted(manifest["rejected"], key=lambda entry: -entry["count"])],
        difficulty=_difficulty(manifest),
        licences=[
            [name, facts["adapter"], facts["role"], len(facts["files"]), facts["license"], facts["license_note"]]
            for name, facts in sorted(manifest["sources"].items())
        ],
        examples=[_example(sample) for sample in examples],
    )


def _headline(manifest: Mapping[str, Any]) -> str:
    rows = ", ".join(f"{content['num_rows']:,} {role}" for role, content in sorted(manifest["result"].items()))
    found = manifest["deduplication"]
    code = manifest["code"]
    commit = f", commit {code['commit'][:12]}" if code["commit"] else ""
    return (
        f"{rows or 'no'} rows in {len(manifest['shards'])} files. {sum(found['duplicates'].values()):,} duplicates and "
        f"{sum(found['leaks'].values()):,} leaks of evaluation sets were left out. Seed {manifest['recipe']['seed']}, "
        f"built by version {code['package']}{commit}."
    )


def _quota(quota: Mapping[str, Any]) -> list[str]:
    missing = Markup('<span class="short">{:,}</span>').format(quota["missing"]) if quota["missing"] else "0"
    return [f"{quota['kind']} {quota['name']}", f"{quota['requested']:,}", f"{quota['found']:,}", missing]


def _funnel(entry: Mapping[str, Any], stages: Sequence[str]) -> list[str]:
    steps = {step["stage"]: step for step in entry["stages"]}
    first = f"{entry['stages'][0]['in']:,}" if entry["stages"] else "0"
    return [f"{entry['source']} ({entry['role']})", first, *(_after(steps.get(stage)) for stage in stages)]


def _after(step: Mapping[str, Any] | None) -> str:
    if step is None:
        return ""
    lost = step["in"] - step["out"]
    return f"{step['out']:,} (-{lost:,})" if lost else f"{step['out']:,}"


def _rejection(entry: Mapping[str, Any]) -> list[str]:
    examples = Markup("").join(
        Markup("<code>{}: {}<br>{}</code>").format(row["source_id"], row["detail"], row["question"])
        for row in entry["examples"]
    )
    return [
        f"{entry['source']} ({entry['role']})",
        entry["stage"],
        Markup('<span title="{}">{}</span>').format(entry["meaning"], entry["reason"]),
        f"{entry['count']:,}",
        Markup("<details><summary>{}</summary>{}</details>").format(entry["meaning"], examples),
    ]


def _difficulty(manifest: Mapping[str, Any]) -> list[Markup]:
    plots = []
    colours = colours_of(manifest["difficulty"])
    for function, found in sorted(manifest["difficulty"].items()):
        before = found.get("before", {})
        for name, title in DIFFICULTIES.items():
            if name not in before:
                continue
            empty = {"edges": before[name]["edges"], "counts": [0] * len(before[name]["edges"])}
            plots.append(
                histogram_svg(
                    f"{function}: {title}",
                    found.get("after", {}).get(name, empty),
                    colour=colours[function],
                    before=before[name],
                    band=_band(manifest["recipe"]["select"]["bands"].get(function), name),
                )
            )
    return plots


def _band(settings: Mapping[str, Any] | None, name: str) -> tuple[float, float] | None:
    """Return the range of one statistic that a band keeps; the bins at the ends are all wrong and all right."""
    if settings is None:
        return None
    if name == "std":
        return settings["min_std"], 1.0
    lowest = REWARD_EDGES[1] if settings["drop_all_wrong"] else 0.0
    highest = REWARD_EDGES[-1] if settings["drop_all_right"] else 1.0
    if name == "pass_rate":
        return lowest, highest
    return max(lowest, settings["min_mean"]), min(highest, settings["max_mean"])


def _content(content: Mapping[str, Any]) -> dict[str, Any]:
    histograms, properties = content["histograms"], content["by"]
    return {
        "mix": stacked_bars_svg(content["mix"]),
        "plots": [histogram_svg(title, histograms[name]) for name, title in LENGTHS.items() if name in histograms],
        "year_frac": content["chart_year_frac"],
        "shares": [(title, _shares(properties[name])) for name, title in BALANCES.items() if name in properties],
    }


def _shares(counts: Mapping[str, int]) -> list[list[str]]:
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[NUM_VALUES:])
    listed = [*ranked[:NUM_VALUES], *([("others", rest)] if rest else [])]
    return [[value, f"{count:,}", f"{count / total:.1%}"] for value, count in listed]


def _example(sample: Sample) -> dict[str, Any]:
    entries = parse_boxes(sample.answer) or [] if sample.task == "iou" else []
    boxes = [entry.box for entry in entries if entry.box]
    tokens = f"{sample.prompt_tokens} prompt tokens" if sample.prompt_tokens is not None else ""
    origin = f"{sample.source} {sample.source_id}".rstrip()
    is_long = len(sample.answer) > MAX_ANSWER_CHARS
    return {
        "sample": sample,
        "turns": [(role, readable(text)) for role, text in _turns(sample)],
        "question": readable(sample.question),
        "pictures": images_svg([(data_uri(image), image.size) for image in sample.images], reference=boxes),
        "facts": [sample.task, sample.answer_type, origin, sample.stratum, tokens],
        "answer": sample.answer[:MAX_ANSWER_CHARS] + " ..." if is_long else sample.answer,
        "difficulty": _difficulty_of(sample),
    }


def _turns(sample: Sample) -> Iterator[tuple[str, str]]:
    """Yield role and text of what comes before the question."""
    if sample.system:
        yield "system", sample.system
    for turn in sample.history:
        yield turn.role, turn.text


def _difficulty_of(sample: Sample) -> str:
    found = sample.difficulty
    if found is None:
        return "difficulty not measured"
    return (
        f"mean reward {found.mean:.2f} ± {found.std:.2f} of {found.num_completions} completions, "
        f"{found.pass_rate:.0%} right, format {found.format_rate:.2f}"
    )
