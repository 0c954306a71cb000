"""Results of an evaluation: tables on the terminal, summary and pages, files for other toolkits."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from orchestration.evaluate.benchmarks import Preset, PresetResult, apply_preset
from orchestration.evaluate.page import comparison_page, evaluation_page
from orchestration.evaluate.predictions import write_lmms_eval, write_vlmevalkit
from orchestration.evaluate.statistics import Resampling
from orchestration.evaluate.store import Manifest, write_json, write_whole
from orchestration.evaluate.summary import SummarySettings, compare, summarise
from orchestration.evaluate.tables import comparison_table, preset_table, summary_table
from orchestration.settings.errors import DataError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.workers.answers import EvaluatedSample
from orchestration.workers.collect import Bench


def publish(
    config: ExperimentConfig,
    folder: Path,
    manifest: Manifest,
    bench: Bench,
    samples: Sequence[EvaluatedSample],
    preset: Preset | None,
) -> None:
    """Write summary, page and the files for other toolkits into `folder`, and print the tables.

    Raises:
        DataError: The preset scored no row.
    """
    settings = summary_settings(config)
    summary = summarise(samples, settings)
    result = None if preset is None else apply_preset(preset, samples, settings)
    values = {item.name: getattr(summary, item.name) for item in fields(summary)}
    write_json(folder / "summary.json", {**values, "preset": result})
    title = f"{Path(manifest.model).name} on {Path(manifest.data).name}"
    write_whole(
        folder / "page.html",
        evaluation_page(
            title=title,
            summary=summary,
            preset=result,
            samples=samples,
            image_of=bench.images_of,
            num_worst=config.evaluate.num_worst,
        ),
    )
    if config.evaluate.greedy:
        _write_for_toolkits(config, folder, samples)
    say(summary_table(summary))
    if result is not None:
        say("")
        say(preset_table(result))
        check_preset_scored(result)


def check_preset_scored(result: PresetResult) -> None:
    """Raise DataError where a preset scored no row."""
    if result.num_rows == 0:
        raise DataError(
            f"preset={result.preset} scored no row: {result.num_skipped} are of other tasks and {result.num_failed} "
            "failed; choose the preset of this data, or leave it out"
        )


def _write_for_toolkits(config: ExperimentConfig, folder: Path, samples: Sequence[EvaluatedSample]) -> None:
    boxes = config.evaluate.boxes
    for source in sorted({sample.source for sample in samples}):
        rows = [sample for sample in samples if sample.source == source]
        name = source.replace("/", "-")
        write_vlmevalkit(folder / "vlmevalkit", rows, model="mixed-r1", dataset=name, boxes=boxes)
        if all(row.source_id.isdigit() for row in rows):  # lmms-eval finds rows only by their place in a split
            write_lmms_eval(folder / "lmms_eval", rows, model="mixed-r1", task=name, boxes=boxes)


def publish_comparison(
    config: ExperimentConfig,
    folder: Path,
    bench: Bench,
    earlier: tuple[Manifest, list[EvaluatedSample]],
    later: tuple[Manifest, list[EvaluatedSample]],
) -> None:
    """Compare with an earlier evaluation of the same rows; write the comparison and print its tables."""
    comparisons = compare(earlier[1], later[1], settings=summary_settings(config), allow_unmatched=True)
    write_json(
        folder / "comparison.json",
        {"before": earlier[0].model, "after": later[0].model, "metrics": comparisons},
    )
    write_whole(
        folder / "comparison.html",
        comparison_page(
            title=f"{Path(earlier[0].model).name} and {Path(later[0].model).name} on {Path(later[0].data).name}",
            comparisons=comparisons,
            before=earlier[1],
            after=later[1],
            image_of=bench.images_of,
        ),
    )
    for comparison in comparisons:
        say("")
        say(comparison_table(comparison))


def summary_settings(config: ExperimentConfig) -> SummarySettings:
    """Return what is computed, from the settings."""
    settings = config.evaluate
    return SummarySettings(
        pass_ks=settings.pass_ks if settings.num_completions else (),
        cluster_key=settings.cluster_key,
        resampling=Resampling(seed=config.seed, num_resamples=settings.num_resamples, level=settings.level),
    )


def list_files(folder: Path) -> None:
    """Print the paths of all files."""
    say("")
    for path in sorted(folder.glob("[!.]*")):
        say(f"{path}")


def say(line: str) -> None:
    """Print one line to the user, at once."""
    print(line, flush=True)
