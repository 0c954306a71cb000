r"""Predictions as files that VLMEvalKit and lmms-eval can score again, with think and answer tags removed.

As read in the public repositories (2026-11); what was not tried is marked as unverified:

VLMEvalKit, `{model}_{dataset}.tsv`. Its `load` reads a .tsv with pandas and a tab; its own file has all cells quoted
(`vlmeval/smp/file.py`). `dataset.evaluate(file)` needs `index` and `prediction`; relaxed accuracy (ChartQA_TEST) also
reads `answer` and, if present, `split` (`dataset/image_vqa.py`); yes/no sets read `answer` as `Yes` or `No` with a
capital letter, and POPE `category`, commas between several (`dataset/image_yorn.py`, `utils/yorn.py`); multiple choice
reads `question`, `A`, `B`, ... and takes the reference from its own table by `index`
(`utils/multiple_choice.py`); RefCOCO takes reference and image size from its own table by `index`, reads the first
bracket of four numbers, and guesses the frame: at most 1.5 is 0..1, at most 1000 is 0..1000, else pixels
(`dataset/refcoco.py`). So `index` must be the benchmark's own: it is our `source_id`. Boxes should be exported as
norm1 or norm1000; pixels of a small image would be misread. `run.py` looks for .xlsx unless PRED_FORMAT=tsv is set,
and reuses a file only with --reuse.
    Unverified: that run.py of every release finds a file placed by hand; call `build_dataset(name).evaluate(path)`.
    Known: pandas reads cells such as `None` or `NA` as missing, and a column of numbers as numbers.

lmms-eval, `{task}_samples.jsonl`. The fields are those that its tracker writes with --log_samples: doc_id, target,
resps, filtered_resps (`lmms_eval/evaluator.py`, `loggers/evaluation_tracker.py`); hashes and input are left out. No
command of it scores such a file. What does is its model `from_log` (`lmms_eval/models/simple/from_log.py`):
`--model from_log --model_args logs=FOLDER` answers each doc_id with the logged text, so that the task's own scorer
runs. It reads .json files with `args`, `model_configs.task` and `logs`: that is `{task}_from_log.json`. doc_id must be
the row's place in the benchmark's split: our `source_id` as an integer. RefCOCO there expects boxes as 0..1 (norm1).
    Unverified: a run of from_log over our file; that every release keeps it.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Literal

from orchestration.evaluate.store import write_whole
from orchestration.settings.errors import DataError
from orchestration.workers.answers import UNANSWERED, EvaluatedSample, bare_answer, model_boxes
from rewards.core.config import DEFAULT_FORMAT, FormatConfig
from rewards.text.yes_no import read_yes_no

BoxFrame = Literal["as_given", "pixel", "norm1", "norm1000"]
"""Frame of exported boxes; `as_given` leaves the answer as the model wrote it."""
LABEL_COLUMNS = ("category", "l2-category", "split")
"""Metadata that VLMEvalKit groups its results by."""


def write_vlmevalkit(
    folder: Path,
    samples: Sequence[EvaluatedSample],
    *,
    model: str,
    dataset: str,
    boxes: BoxFrame = "as_given",
    form: FormatConfig = DEFAULT_FORMAT,
) -> Path:
    """Write `{model}_{dataset}.tsv` and return its path; failed rows are written as unanswered.

    Args:
        folder: Where to write.
        samples: Rows of one benchmark, each with a greedy completion unless it failed.
        model: Name of the model as VLMEvalKit shows it.
        dataset: VLMEvalKit's name of the benchmark, ChartQA_TEST for instance.
        boxes: Frame of the boxes of `iou` rows.
        form: Form in which the model answered.

    Raises:
        DataError: A row lacks source_id or a greedy completion, two rows share a source_id, or a name holds a slash.
    """
    _check(samples, {"model": model, "dataset": dataset})
    num_options = max((len(sample.options) for sample in samples), default=0)
    labels = [name for name in LABEL_COLUMNS if any(name in sample.metadata for sample in samples)]
    header = ["index", "question", *ascii_uppercase[:num_options], "answer", *labels, "prediction"]
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(header)
    for sample in samples:
        options = [*sample.options, *[""] * (num_options - len(sample.options))]
        categories = [sample.metadata.get(name, "") for name in labels]
        cells = [
            sample.source_id,
            sample.question,
            *options,
            _target(sample),
            *categories,
            prediction(sample, boxes, form),
        ]
        # A null byte ends a cell for pandas' reader.
        writer.writerow([cell.replace("\0", " ") for cell in cells])
    path = folder / f"{model}_{dataset}.tsv"
    write_whole(path, text.getvalue())
    return path


def write_lmms_eval(
    folder: Path,
    samples: Sequence[EvaluatedSample],
    *,
    model: str,
    task: str,
    boxes: BoxFrame = "as_given",
    form: FormatConfig = DEFAULT_FORMAT,
) -> tuple[Path, Path]:
    """Write `{task}_samples.jsonl` and `{task}_from_log.json` and return their paths; see the module's docstring.

    Args:
        folder: As in `write_vlmevalkit`, like the rest.
        samples: Rows of one benchmark.
        model: Name of the model.
        task: lmms-eval's name of the benchmark, chartqa for instance.
        boxes: Frame of the boxes of `iou` rows.
        form: Form in which the model answered.

    Raises:
        DataError: As in `write_vlmevalkit`, or a source_id is not an index of the split (0, 1, ...).
    """
    _check(samples, {"task": task})
    bad = next((sample for sample in samples if not (sample.source_id.isascii() and sample.source_id.isdigit())), None)
    if bad is not None:
        raise DataError(
            f"sample {bad.sample_id} has source_id {bad.source_id!r}; lmms-eval knows rows by their place in the split "
            "(0, 1, ...): build the data with that number as source_id"
        )
    answers = [(int(sample.source_id), sample, prediction(sample, boxes, form)) for sample in samples]
    answers.sort(key=lambda answer: answer[0])
    lines = [
        {
            "doc_id": doc_id,
            "target": sample.answer,
            "resps": [[sample.greedy.text if sample.greedy else UNANSWERED]],
            "filtered_resps": [text],
        }
        for doc_id, sample, text in answers
    ]
    log = {
        "args": {"model": model, "model_args": "", "limit": None},
        "model_configs": {"task": task},
        "logs": [{"doc_id": doc_id, "resps": [[text]]} for doc_id, _, text in answers],
    }
    paths = folder / f"{task}_samples.jsonl", folder / f"{task}_from_log.json"
    write_whole(paths[0], "".join(json.dumps(line) + "\n" for line in lines))
    write_whole(paths[1], json.dumps(log) + "\n")
    return paths


def prediction(sample: EvaluatedSample, boxes: BoxFrame = "as_given", form: FormatConfig = DEFAULT_FORMAT) -> str:
    """Return the greedy answer without its marks, its boxes in the given frame.

    Boxes are written as `[x1, y1, x2, y2]`, one after another, without exponents; malformed ones are omitted, and an
    answer without a usable box is unchanged.

    Raises:
        GoldError: A box is to be converted and the row lacks the image size that its frame needs.
    """
    if sample.greedy is None:
        return UNANSWERED
    if sample.task != "iou" or boxes == "as_given":
        return bare_answer(sample.greedy.text, form)
    found = [box for box in model_boxes(sample.request(sample.greedy.text), form) if box is not None]
    if not found:
        return bare_answer(sample.greedy.text, form)
    scale = _scale(sample, boxes)
    return ", ".join(f"[{', '.join(scale(value, axis % 2) for axis, value in enumerate(box))}]" for box in found)


def _scale(sample: EvaluatedSample, frame: BoxFrame) -> Callable[[float, int], str]:
    """Return the function that formats a value in original pixels along axis 0 (x) or 1 (y) in a frame."""
    if frame == "pixel":
        return lambda value, axis: f"{value:.2f}"
    if not sample.image_sizes:
        raise DataError(f"sample {sample.sample_id} has no image size; its boxes cannot be written as {frame}")
    unit, digits = (1.0, 6) if frame == "norm1" else (1000.0, 3)
    return lambda value, axis: f"{value / sample.image_sizes[0][axis] * unit:.{digits}f}"


def _target(sample: EvaluatedSample) -> str:
    """Return the reference as VLMEvalKit compares it: Yes and No with capitals, all else as it is."""
    label = read_yes_no(sample.answer)[0] if sample.task == "match_yesno" else None
    return sample.answer if label is None else ("Yes" if label else "No")


def _check(samples: Sequence[EvaluatedSample], names: dict[str, str]) -> None:
    for key, name in names.items():
        if not name or "/" in name or name.startswith("."):
            raise DataError(f"{key} is {name!r}; it becomes part of a file name: no slash, no leading dot")
    for sample in samples:
        if not sample.source_id:
            raise DataError(f"sample {sample.sample_id} has no source_id; a toolkit would not know which row it is")
        if sample.greedy is None and sample.failure is None:
            raise DataError(f"sample {sample.sample_id} has no greedy completion; evaluate with greedy decoding")
        if len(sample.options) > len(ascii_uppercase):
            raise DataError(f"sample {sample.sample_id} has {len(sample.options)} options; columns A to Z hold 26")
    if len({sample.source_id for sample in samples}) < len(samples):
        raise DataError("two rows share a source_id; export one benchmark at a time")
