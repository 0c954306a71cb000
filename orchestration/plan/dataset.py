"""The dataset against the run's settings: prompt lengths, rows that the run refuses, rewards by task.

Images are not opened. A row is refused for the reasons for which the run itself drops it (rollout/prompt.py, and vLLM's
check of a prompt's length).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Tokenizer

from orchestration.models.chat_template import ChatTemplate
from orchestration.models.image_tokens import PROBE_SIZE, image_tokens
from orchestration.models.measured import measured_with, of_record
from orchestration.models.shapes import ModelShape
from orchestration.plan.batches import Histogram
from orchestration.plan.records import Finding, warning
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from rewards.core.base import RewardRequest
from rewards.core.config import RewardConfig
from rewards.functions.tokenizer import load_tokenizer
from rewards.proof import ReferenceFault, ReferenceProof
from rollout.config import StreamConfig
from rollout.conversation import Conversation, PromptSpec
from rollout.dataset import SampleTable
from rollout.mixture import find_buckets
from rollout.placeholders import SPELLINGS, placeholder_tokens
from rollout.prompt import PromptLength
from rollout.records import IMAGE_PLACE, Turn, readable

Size = tuple[int, int]
"""Width and height in pixels."""


class PromptRuler:
    """Measures prompts with the run's own chat template, tokenizer, and image token counts."""

    def __init__(self, folder: Path, shape: ModelShape, processor: Mapping[str, Any], spec: PromptSpec) -> None:
        """Load template and tokenizer.

        Args:
            folder: Hugging Face folder of the model.
            shape: Sizes of the model.
            processor: Content of preprocessor_config.json.
            spec: What the run adds to the texts of rows.

        Raises:
            ConfigError: the folder has no chat template, or one that does not parse; the processor is of another model.
            RewardError: it has no tokenizer.
        """
        self.folder = folder
        self._tokenizer: Tokenizer = load_tokenizer(folder)
        self._shape, self._processor, self._spec = shape, processor, spec
        if shape.image_kind != "none":  # settings of another model's processor are refused here, not row by row
            image_tokens(shape, processor, *PROBE_SIZE)
        self._template = ChatTemplate(folder)

    def measure(self, prompts: Sequence[Conversation], sizes: Sequence[Sequence[Size]]) -> list[PromptLength | None]:
        """Return the length of each prompt, given its texts and image sizes; None for a refused image."""
        texts = [
            self._template.prompt(
                prompt.question,
                num_images=len(own),
                spec=self._spec,
                system=prompt.system,
                history=prompt.history,
                task=prompt.task,
            )
            for prompt, own in zip(prompts, sizes, strict=True)
        ]
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [self._length(len(encoding.ids), own) for encoding, own in zip(encodings, sizes, strict=True)]

    def _length(self, num_tokens: int, sizes: Sequence[Size]) -> PromptLength | None:
        try:
            images = sum(image_tokens(self._shape, self._processor, width, height) for width, height in sizes)
        except ConfigError:
            return None
        return PromptLength(num_tokens=num_tokens - len(sizes) + images, num_image_tokens=images)


Reason = Literal[
    "too_many_images",
    "placeholder_in_question",
    "places_unequal",
    "image_refused",
    "prompt_too_long",
    "completion_cut",
]

REASONS: Mapping[Reason, str] = {
    "too_many_images": "more images than rollout.engine.max_images_per_prompt",
    "placeholder_in_question": "question, system text or history contain a vision placeholder",
    "places_unequal": "places of images in question, system text or history that are not those of the row's images",
    "image_refused": "the processor refuses an image of that shape",
    "prompt_too_long": "prompt of rollout.engine.max_model_len tokens or more",
    "completion_cut": "prompt that leaves less than max_completion_tokens; accepted, long completions are truncated",
}
"""Description of each reason; rows of all but the last are refused."""
NUM_EXAMPLES = 3
MAX_MEASURED = 8192
"""Rows measured by a plan at most, evenly spaced: it should take seconds."""
PROMPT_COLUMNS = (
    "sample_id",
    "question",
    "system",
    "history",
    "task",
    "images.list.element.width",
    "images.list.element.height",
    "images.list.element.size_bytes",
    "prompt_tokens",
    "image_tokens",
)
MAX_PROVED = 64
"""References tried per source and task at most, evenly spaced: a plan should take seconds."""
REFERENCE_COLUMNS = (
    *("task", "source", "question", "answer", "options", "answer_type"),
    *("images.list.element.width", "images.list.element.height"),
)
FAULTS = {
    "unusable": "cannot be graded against",
    "not_right": "do not score 1 as answers",
    "unearned": "are refused by their own reward when written plainly",
    "unselective": "are paid for another value too",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """Rows that do not fit a limit."""

    reason: Reason
    num_rows: int
    examples: tuple[str, ...]
    """Sample ids of the first ones."""

    @property
    def is_refused(self) -> bool:
        """Whether the run drops such rows."""
        return self.reason != "completion_cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPlan:
    """Prompt lengths and refused rows of the dataset that the run draws from."""

    num_rows: int
    """Rows that the run draws from."""
    num_others: int
    """Rows that data.stream excludes."""
    num_unmeasured: int
    """Rows whose length is not known."""
    measured_by: str
    """What measured the other rows; empty if no length is known."""
    doubt: str
    """Why lengths that the dataset states are not those of this run, and what became of them; empty if they are."""
    prompts: Histogram | None
    """Tokens of the accepted prompts, images included; None if none is measured."""
    images: Histogram | None
    """Tokens of the images in them."""
    images_per_prompt: float
    image_bytes: float
    """Mean encoded bytes of the images of one prompt."""
    outliers: tuple[Outlier, ...]

    @property
    def num_seen(self) -> int:
        """Rows whose length is known."""
        return self.num_rows - self.num_unmeasured

    @property
    def num_refused(self) -> int:
        """Rows that the run drops."""
        return sum(outlier.num_rows for outlier in self.outliers if outlier.is_refused)


def plan_prompts(
    config: ExperimentConfig, table: SampleTable, drawn: NDArray[np.int32], ruler: PromptRuler | None
) -> PromptPlan:
    """Collect prompt lengths and refused rows.

    Args:
        config: Limits of the run.
        table: The training rows.
        drawn: Numbers of the rows that the run draws from.
        ruler: Measures rows whose columns state no length, or that of another processor, chat template or system
            prompt; None leaves them unmeasured.
    """
    rows = table.arrow(*PROMPT_COLUMNS).take(pa.array(drawn))
    images = rows.column("images").to_pylist()
    sizes = [[(image["width"], image["height"]) for image in own] for own in images]
    image_bytes = sum(image["size_bytes"] for own in images for image in own) / rows.num_rows
    prompt_tokens, image_tokens = rows.column("prompt_tokens").to_pylist(), rows.column("image_tokens").to_pylist()
    doubt, is_believed = _doubt(config, table, ruler) if any(prompt_tokens) else ("", True)
    if not is_believed:
        prompt_tokens, image_tokens = [None] * rows.num_rows, [None] * rows.num_rows
    unknown = [index for index, tokens in enumerate(prompt_tokens) if tokens is None]
    measured = unknown[:: -(-len(unknown) // MAX_MEASURED) or 1]
    reasons: dict[int, Reason] = {}
    if ruler is not None and measured:
        found = ruler.measure(_conversations(rows.take(pa.array(measured))), [sizes[index] for index in measured])
        for index, length in zip(measured, found, strict=True):
            if length is None:
                reasons[index] = "image_refused"
            else:
                prompt_tokens[index], image_tokens[index] = length.num_tokens, length.num_image_tokens
    placeholders = SPELLINGS if ruler is None else placeholder_tokens(ruler.folder)
    reasons |= _outliers(config, rows, sizes, prompt_tokens, placeholders)
    known = [index for index, tokens in enumerate(prompt_tokens) if tokens is not None]
    taken = [index for index in known if reasons.get(index) in (None, "completion_cut")]
    by_reason: dict[Reason, list[int]] = {reason: [] for reason in REASONS}
    for index in sorted(reasons):
        by_reason[reasons[index]].append(index)
    ids = rows.column("sample_id")
    return PromptPlan(
        num_rows=rows.num_rows,
        num_others=len(table) - rows.num_rows,
        num_unmeasured=rows.num_rows - len({*known, *reasons}),
        measured_by=_measured_by(len(unknown), len(measured), rows.num_rows, ruler),
        doubt=doubt,
        prompts=Histogram.of([prompt_tokens[index] for index in taken]) if taken else None,
        images=Histogram.of([image_tokens[index] or 0 for index in taken]) if taken else None,
        images_per_prompt=sum(map(len, sizes)) / rows.num_rows,
        image_bytes=image_bytes,
        outliers=tuple(
            Outlier(
                reason=reason, num_rows=len(own), examples=tuple(ids[index].as_py() for index in own[:NUM_EXAMPLES])
            )
            for reason, own in by_reason.items()
            if own
        ),
    )


def _outliers(
    config: ExperimentConfig,
    rows: pa.Table,
    sizes: Sequence[Sequence[Size]],
    prompt_tokens: Sequence[Any],
    placeholders: Sequence[str],
) -> dict[int, Reason]:
    """Return the reason of each row that exceeds a limit: the first one that the run would raise."""
    engine, sampling = config.rollout.engine, config.rollout.sampling
    room = engine.max_model_len - sampling.longest_completion
    found: dict[int, Reason] = {}
    for index, tokens in enumerate(prompt_tokens):
        if tokens is not None and tokens > room:
            found[index] = "prompt_too_long" if tokens >= engine.max_model_len else "completion_cut"
    for index, own in enumerate(sizes):
        if len(own) > engine.max_images_per_prompt:
            found[index] = "too_many_images"
    with_turns = pc.greater(pc.list_value_length(rows.column("history")), 0)
    with_places = [pc.match_substring(rows.column(name), IMAGE_PLACE) for name in ("question", "system")]
    placed = pc.indices_nonzero(reduce(pc.or_, with_places, with_turns))
    for index, conversation in zip(placed.to_pylist(), _conversations(rows.take(placed)), strict=True):
        if not conversation.has_places_for(len(sizes[index])) or IMAGE_PLACE in conversation.system:
            found[index] = "places_unequal"
        if any(token in text for _, text in conversation.texts() for token in placeholders):
            found[index] = "placeholder_in_question"
    for texts in (rows.column("question"), rows.column("system")):
        for token in placeholders:
            holds = pc.indices_nonzero(pc.match_substring(texts, token))
            found |= dict.fromkeys(holds.to_pylist(), "placeholder_in_question")
    return found


def _doubt(config: ExperimentConfig, table: SampleTable, ruler: PromptRuler | None) -> tuple[str, bool]:
    """Return why the lengths in a dataset may not be those of this run, and whether they are believed all the same."""
    mine = measured_with(config.model, None if ruler is None else ruler.folder, config.rollout.prompt_spec)
    tasks = {task for task, _ in table.tasks_and_sources()}
    kept = [of_record(text) for text in table.measured_with()]
    other = sorted({name for one in kept if one is not None for name in one.differences(mine, tasks)})
    if other:
        what = f"were measured with other settings than this run's ({', '.join(other)})"
    elif None in kept:
        what = "do not say which processor and system prompt measured them"
    else:
        return "", True
    if ruler is not None:
        return f"{what}; measured again", False
    done = "ignored" if other else "taken as they are"
    return f"{what}; {done}, as the model's folder, with which they are measured again, is not there", not other


def _conversations(rows: pa.Table) -> list[Conversation]:
    columns = (rows.column(name).to_pylist() for name in ("question", "system", "history", "task"))
    return [
        Conversation(question, system, tuple(Turn(**turn) for turn in history), task)
        for question, system, history, task in zip(*columns, strict=True)
    ]


def _measured_by(num_unknown: int, num_measured: int, num_rows: int, ruler: PromptRuler | None) -> str:
    if num_unknown == 0:
        return "the data engine, when the dataset was built"
    if ruler is None:
        return "" if num_unknown == num_rows else "the data engine, for a part of the rows"
    now = "this plan, with the model's tokenizer and the arithmetic of its image processor"
    if num_measured < num_unknown:
        now += f", on {num_measured:,} evenly spaced rows"
    return now if num_unknown == num_rows else f"the data engine; {num_unknown:,} rows by {now}"


def streamed_rows(table: SampleTable, config: StreamConfig) -> NDArray[np.int32]:
    """Return the numbers of the rows that a run draws from, ascending: all, or those that data.stream selects.

    Raises:
        RolloutError: the stream's settings do not fit the dataset.
    """
    if config.is_plain:
        return np.arange(len(table), dtype=np.int32)
    return np.sort(np.concatenate(find_buckets(table, config).rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteCount:
    """Rows of one task that one reward function scores."""

    task: str
    function: str
    num_rows: int | None
    """None if the dataset is not there."""
    format_weight: float
    task_weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrouted:
    """Rows without a reward function; a run refuses a dataset with such rows."""

    task: str
    source: str
    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingPlan:
    """Which reward function scores which rows."""

    routes: tuple[RouteCount, ...]
    """Most rows first."""
    unrouted: tuple[Unrouted, ...]
    """In the training and held-out rows together."""


def plan_routing(
    config: RewardConfig, drawn: Iterable[tuple[str, str]] | None, every: Iterable[tuple[str, str]]
) -> RoutingPlan:
    """Count rows by task and reward function.

    Args:
        config: Routes, rules and weights.
        drawn: (task, source) of each row that the run draws from; None if there is no dataset yet.
        every: (task, source) of each row of both datasets, to find rows without a function.
    """
    if drawn is None:
        return RoutingPlan(routes=tuple(_route(config, task, "") for task in config.routes), unrouted=())
    grouped: Counter[RouteCount] = Counter()
    for (task, source), num_rows in Counter(drawn).items():
        if config.is_routed(task, source):
            grouped[_route(config, task, source)] += num_rows
    ordered = sorted(grouped.items(), key=lambda found: (-found[1], astuple(found[0])))
    missing = sorted(config.unrouted(every).items())
    return RoutingPlan(
        routes=tuple(replace(route, num_rows=num_rows) for route, num_rows in ordered),
        unrouted=tuple(Unrouted(task=task, source=source, num_rows=num) for (task, source), num in missing),
    )


def _route(config: RewardConfig, task: str, source: str) -> RouteCount:
    route = config.route(task, source)
    return RouteCount(
        task=task,
        function=route.function,
        num_rows=None,
        format_weight=route.format_weight,
        task_weight=route.task_weight,
    )


def reference_findings(config: RewardConfig, table: SampleTable, drawn: NDArray[np.int32]) -> Iterator[Finding]:
    """Grade some references of each source as answers, and yield a warning for each source with faults.

    Rows without a route are skipped.
    """
    by_source: dict[tuple[str, str], list[int]] = defaultdict(list)
    pairs = table.tasks_and_sources()
    for index in drawn.tolist():
        if config.is_routed(*pairs[index]):
            by_source[pairs[index]].append(index)
    chosen = {pair: rows[:: -(-len(rows) // MAX_PROVED)] for pair, rows in by_source.items()}
    columns = table.arrow(*REFERENCE_COLUMNS)
    with ReferenceProof(config) as proof:
        for (task, source), indices in sorted(chosen.items()):
            requests = map(_request, columns.take(pa.array(indices)).to_pylist())
            faults = [fault for fault in map(proof.fault, requests) if fault is not None]
            yield from _findings(f"source {source!r}, task {task}", faults, len(indices))


def _findings(where: str, faults: list[ReferenceFault], num_proved: int) -> Iterator[Finding]:
    for kind, text in FAULTS.items():
        own = [fault for fault in faults if fault.kind == kind]
        if own:
            yield warning(
                "data.train",
                f"{where}: {len(own)} of {num_proved} references tried {text}, such as {own[0].detail}; "
                "correct them, or route the source to another reward (reward.rules)",
            )


def _request(row: dict[str, Any]) -> RewardRequest:
    sizes = tuple((image["width"], image["height"]) for image in row["images"])
    return RewardRequest(
        task=row["task"],
        source=row["source"],
        question=readable(row["question"]),
        response="",
        answer=row["answer"],
        options=tuple(row["options"]),
        answer_type=row["answer_type"],
        image_sizes=sizes,
        image_input_sizes=sizes,
    )
