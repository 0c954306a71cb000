import random
from collections import Counter
from pathlib import Path

import pytest

from orchestration.models.image_tokens import processor_of, saved_processor
from orchestration.models.measured import measured_with
from orchestration.models.shapes import shape_of
from orchestration.plan.dataset import PromptPlan, PromptRuler, plan_prompts, streamed_rows
from orchestration.settings.experiment import ExperimentConfig
from rollout.conversation import PromptSpec
from rollout.dataset import SampleTable
from rollout.errors import RolloutError
from rollout.prompt import PromptBuilder
from rollout.records import IMAGE_PLACE, Turn
from tests.tiny_models import make_tiny_model
from tests.unit.plan.runs import dataset, gpu_settings, row

WORDS = ["how", "tall", "is", "the", "third", "bar", "of", "left", "red", "chart", "and", "where"]


def drawn_turns(rng: random.Random, question: str, num_images: int) -> dict[str, object]:
    """System text, history and question with images in their places; at times one place too many."""
    places = [rng.randrange(2) for _ in range(num_images + (rng.random() < 0.1))]
    told = " ".join(rng.choices(WORDS, k=rng.randrange(4))) + rng.choice(["", "", "", "<|image_pad|>"])
    asked = "\ufffc" * places.count(0) + rng.choice(["who", "who", "<image>"])
    return {
        "system": rng.choice(["", told]),
        "history": [{"role": "user", "text": asked}, {"role": "assistant", "text": told}],
        "question": " \ufffc".join([question] + [""] * places.count(1)),
    }


def drawn_rows(seed: int, number: int) -> list[dict[str, object]]:
    rng = random.Random(seed)
    rows = []
    for index in range(number):
        question = " ".join(rng.choices(WORDS, k=rng.randrange(1, 60)))
        if rng.random() < 0.1:
            question += rng.choice(["<image>", "<|image_pad|>"])
        sizes = tuple((rng.randrange(1, 900), rng.randrange(28, 900)) for _ in range(rng.randrange(4)))
        is_in_place = rng.random() < 0.2
        if is_in_place:
            question = f"{IMAGE_PLACE} and ".join([question, *["then"] * len(sizes)])
        asked = row(index, question=question, sizes=sizes, prompt_tokens=None, image_tokens=None)
        if not is_in_place and rng.random() < 0.5:
            asked |= drawn_turns(rng, question, len(sizes))
        rows.append(asked)
    return rows


def planned(config: ExperimentConfig, path: Path, ruler: PromptRuler | None = None) -> PromptPlan:
    table = SampleTable(path)
    return plan_prompts(config, table, streamed_rows(table, config.data.stream), ruler)


@pytest.fixture(scope="module", params=["qwen2_5_vl", "internvl"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    make_tiny_model(folder, request.param, corpus=WORDS * 3)
    return request.param, folder


@pytest.mark.parametrize("system_prompt", ["", "first think"])
def test_lengths_and_refusals_are_those_of_the_run(system_prompt: str, model: tuple[str, Path], tmp_path: Path) -> None:
    family, folder = model
    config = gpu_settings(
        f"model=tiny_{family}", "rollout.engine.max_model_len=300", "rollout.sampling.max_completion_tokens=120",
        "rollout.engine.max_images_per_prompt=2",
    )  # fmt: skip
    rows = drawn_rows(0, 200)
    saved = saved_processor(folder)
    assert saved is not None
    ruler = PromptRuler(folder, shape_of(config.model), saved[1], PromptSpec(system_prompt=system_prompt))

    found = planned(config, dataset(tmp_path / "rows.parquet", rows), ruler)

    builder = PromptBuilder(folder, spec=PromptSpec(system_prompt=system_prompt), max_images=2)
    taken, reasons = [], Counter[str]()
    for drawn in rows:
        sizes = [(image["width"], image["height"]) for image in drawn["images"]]  # type: ignore[attr-defined]
        try:
            turns = tuple(Turn(**turn) for turn in drawn["history"])  # type: ignore[attr-defined]
            asked, system = str(drawn["question"]), str(drawn["system"])
            length = builder.measure(asked, sizes, "", system=system, history=turns)
        except RolloutError as error:
            reasons["refused" if "processor" in str(error) else str(error).split(" ", 2)[2][:8]] += 1
            continue
        if length.num_tokens >= 300:
            reasons["prompt_too_long"] += 1
            continue
        reasons["completion_cut"] += length.num_tokens > 180
        taken.append(length)
    assert found.prompts is not None
    assert found.images is not None
    assert sum(found.prompts.counts) == len(taken)
    assert found.prompts.mean == pytest.approx(sum(length.num_tokens for length in taken) / len(taken))
    assert found.images.mean == pytest.approx(sum(length.num_image_tokens for length in taken) / len(taken))
    counted = {outlier.reason: outlier.num_rows for outlier in found.outliers}
    assert counted.get("prompt_too_long", 0) == reasons["prompt_too_long"]
    assert counted.get("completion_cut", 0) == reasons["completion_cut"]
    assert found.num_refused == 200 - len(taken)
    assert found.num_unmeasured == 0
    assert found.num_refused > 0
    assert counted["too_many_images"] > 0
    assert counted["placeholder_in_question"] > 0
    assert counted["places_unequal"] > 0


def test_measured_columns_are_believed_and_nothing_else_is_read(tmp_path: Path) -> None:
    rows = [row(i, prompt_tokens=100 + i, image_tokens=64) for i in range(10)]

    found = planned(gpu_settings(), dataset(tmp_path / "rows.parquet", rows))

    assert found.prompts is not None
    assert (found.prompts.mean, found.prompts.most, found.num_rows) == (104.5, 109, 10)
    assert found.measured_by == "the data engine, when the dataset was built"
    assert (found.images_per_prompt, found.image_bytes) == (1.0, float(len(b"never opened")))


def ruler_of(config: ExperimentConfig, folder: Path) -> PromptRuler:
    return PromptRuler(folder, shape_of(config.model), processor_of(config.model), config.rollout.prompt_spec)


def of_tiny(folder: Path, *overrides: str) -> ExperimentConfig:
    return gpu_settings("model=qwen2_5_vl", f"model.path={folder}", *overrides)


def record_of(config: ExperimentConfig, folder: Path) -> str:
    return measured_with(config.model, folder, config.rollout.prompt_spec).record


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    make_tiny_model(folder, corpus=WORDS * 3)
    return folder


LARGE = ((448, 448),)
"""256 tokens of a picture, 16 at max_pixels=12544."""


def test_lengths_of_the_same_processor_are_believed(qwen: Path, tmp_path: Path) -> None:
    config = of_tiny(qwen, "model.max_pixels=12544")
    rows = [row(i, sizes=LARGE, prompt_tokens=42, image_tokens=16) for i in range(10)]
    path = dataset(tmp_path / "rows.parquet", rows, record_of(config, qwen))

    found = planned(config, path, ruler_of(config, qwen))

    assert found.prompts is not None
    assert (found.prompts.most, found.doubt) == (42, "")
    assert found.measured_by == "the data engine, when the dataset was built"


@pytest.mark.parametrize(
    ("overrides", "record", "doubt"),
    [
        (["model.max_pixels=12544"], "", "were measured with other settings than this run's (images); measured again"),
        (
            ["rollout.system_prompt=Other"], "",
            "were measured with other settings than this run's (system prompt); measured again",
        ),
        (
            ["rollout.system_prompt=Other", "model.max_pixels=12544"], "",
            "were measured with other settings than this run's (images, system prompt); measured again",
        ),
        ([], "nothing", "do not say which processor and system prompt measured them; measured again"),
    ],
)  # fmt: skip
def test_lengths_of_another_processor_are_measured_again(
    overrides: list[str], record: str, doubt: str, qwen: Path, tmp_path: Path
) -> None:
    config = of_tiny(qwen)
    rows = [row(i, sizes=LARGE, prompt_tokens=42, image_tokens=16) for i in range(10)]
    path = dataset(tmp_path / "rows.parquet", rows, record or record_of(of_tiny(qwen, *overrides), qwen))

    found = planned(config, path, ruler_of(config, qwen))

    length = PromptBuilder(qwen, spec=config.rollout.prompt_spec, max_images=2).measure("How many?", LARGE, "")
    assert found.prompts is not None
    assert found.images is not None
    assert (found.prompts.most, found.images.most) == (length.num_tokens, 256)
    assert found.doubt == doubt
    assert found.measured_by.startswith("this plan, ")


def test_without_the_folder_lengths_of_another_processor_are_ignored(qwen: Path, tmp_path: Path) -> None:
    config = of_tiny(qwen)
    rows = [row(i, sizes=LARGE, prompt_tokens=42, image_tokens=16) for i in range(10)]
    other = dataset(tmp_path / "other.parquet", rows, record_of(of_tiny(qwen, "model.max_pixels=12544"), qwen))
    old = dataset(tmp_path / "old.parquet", rows, "")

    ignored, taken = planned(config, other), planned(config, old)

    assert (ignored.prompts, ignored.num_unmeasured) == (None, 10)
    assert "; ignored, as the model's folder, " in ignored.doubt
    assert taken.prompts is not None
    assert taken.prompts.most == 42
    assert "; taken as they are, as the model's folder, " in taken.doubt


def test_one_shard_of_another_processor_casts_doubt_on_all(qwen: Path, tmp_path: Path) -> None:
    config = of_tiny(qwen)
    folder = tmp_path / "rows"
    folder.mkdir()
    dataset(folder / "0.parquet", [row(0, sizes=LARGE, prompt_tokens=42)], record_of(config, qwen))
    dataset(folder / "1.parquet", [row(1, sizes=LARGE, prompt_tokens=42)], "")

    found = planned(config, folder, ruler_of(config, qwen))

    assert found.prompts is not None
    assert found.prompts.most > 256
    assert found.doubt.startswith("do not say which processor")


def test_rows_without_lengths_cast_no_doubt(qwen: Path, tmp_path: Path) -> None:
    config = of_tiny(qwen)
    rows = [row(i, prompt_tokens=None, image_tokens=None) for i in range(3)]
    assert planned(config, dataset(tmp_path / "rows.parquet", rows, ""), ruler_of(config, qwen)).doubt == ""


def test_rows_that_nobody_measured_are_counted_as_such(tmp_path: Path) -> None:
    rows = [row(0), row(1, prompt_tokens=None, image_tokens=None)]

    found = planned(gpu_settings(), dataset(tmp_path / "rows.parquet", rows))

    assert found.num_unmeasured == 1
    assert found.prompts is not None
    assert sum(found.prompts.counts) == 1


def test_rows_that_the_stream_leaves_out_do_not_count(tmp_path: Path) -> None:
    rows = [row(i, task=("chart", "iou")[i % 2], prompt_tokens=100 * (1 + i % 2)) for i in range(10)]
    path = dataset(tmp_path / "rows.parquet", rows)

    of_task = planned(gpu_settings("data.stream.tasks=[iou]"), path)
    of_weight = planned(gpu_settings("data.stream.mixture_by=task", "+data.stream.weights={chart: 1, iou: 0}"), path)

    assert (of_task.num_rows, of_task.num_others, of_task.prompts and of_task.prompts.mean) == (5, 5, 200.0)
    assert (of_weight.num_rows, of_weight.num_others, of_weight.prompts and of_weight.prompts.mean) == (5, 5, 100.0)
