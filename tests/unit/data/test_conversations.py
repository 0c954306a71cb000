"""Conversations through the whole data engine: from messages to the tokens of the prompt."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from transformers import AutoProcessor

from orchestration.cli import compose
from orchestration.data.plan import plan_build
from orchestration.data.sources.rows import RawBox, RawRow, Refused, RejectReason, candidate_from_json, raw_from_json
from orchestration.data.sources.rows import raw_to_json as to_json
from orchestration.settings.experiment import build_settings
from rollout.dataset import SampleTable
from rollout.prompt import PromptBuilder
from rollout.records import Turn
from tests.tiny_models import make_tiny_model
from tests.unit.data.building import build
from tests.unit.data.pictures import encoded, picture
from tests.unit.data.rows import IMAGE, IOU, LIMITS, PLAIN, candidate, normalise

HISTORY = (Turn(role="user", text="\ufffcWho are they?"), Turn(role="assistant", text="Two players."))
MAPPING = "{question: m, answer: m, images: images, task: {constant: match_text}}"


def messages(*texts: str, system: str = "") -> list[dict[str, str]]:
    told = [{"role": "system", "content": system}] if system else []
    return told + [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


ROWS = [
    {
        "m": messages("<image>Who are they?", "Two.", "What are they doing?<image>", "playing", system="Be kind."),
        "images": ["0.png", "1.png"],
    },
    {
        "m": messages("<image>Who are they?", "Three.", "What are they doing?<image>", "resting"),
        "images": ["0.png", "1.png"],
    },
    {"m": messages("What is this?", "a bar"), "images": ["1.png"]},
    {"m": messages("What is this?", "", "And this?", "a bar"), "images": ["0.png"]},
    {"m": messages("how tall is the bar? " * 60, "Tall.", "And this?", "a bar"), "images": ["1.png"]},
    {"m": messages("<image>What is this?", "a box", "And <image>?", "a bar"), "images": ["0.png"]},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("conversations")
    (root / "raw" / "own").mkdir(parents=True)
    for number, side in enumerate((56, 84)):
        (root / "raw" / "own" / f"{number}.png").write_bytes(encoded(picture(side, 56)))
    (root / "raw" / "own" / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    make_tiny_model(root / "model", corpus=["how tall is the bar?"] * 3)
    settings = [
        f"run_dir={root / 'run'}",
        f"cache_dir={root / 'cache'}",
        f"data.recipe.out={root / 'out'}",
        f"data.recipe.raw={root / 'raw'}",
        "~data.recipe.sources.demo",
        "~data.recipe.sources.demo_held_out",
        f"+data.recipe.sources.own={{adapter: jsonl, path: own, options: {{mapping: {MAPPING}}}}}",
        "rollout.engine.max_images_per_prompt=4",
        "data.recipe.measure.max_prompt_tokens=250",
        "+data.recipe.normalise.prompts={match_text: '{question} In one word.'}",
    ]
    build(plan_build(build_settings(compose(settings)), root / "model"), is_tried=False)
    return root


def test_history_and_system_text_reach_the_dataset(root: Path) -> None:
    table = SampleTable(root / "out" / "train")
    found = {sample.answer: sample for sample in map(table.__getitem__, range(len(table)))}
    assert sorted(found) == ["a bar", "playing", "resting"]
    playing = found["playing"]
    assert playing.system == "Be kind."
    assert playing.history == (HISTORY[0], Turn(role="assistant", text="Two."))
    assert playing.question == "What are they doing?\ufffc In one word."
    assert [image.width for image in playing.images] == [56, 84]
    assert (found["a bar"].history, found["a bar"].system, found["a bar"].question) == (
        (),
        "",
        "What is this? In one word.",
    )


def test_what_is_refused_has_its_reason(root: Path) -> None:
    rejected = [
        json.loads(line)
        for path in (root / "cache" / "data").glob("*/*/rejected.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert {(entry["source_id"], entry["reason"]) for entry in rejected} == {
        ("rows/4", "question_empty"),
        ("rows/5", "prompt_too_long"),
        ("rows/6", "markers_unequal"),
    }


def test_the_measured_prompt_is_the_one_that_is_asked(root: Path) -> None:
    processor = AutoProcessor.from_pretrained(root / "model")
    table = SampleTable(root / "out" / "train")
    for sample in map(table.__getitem__, range(len(table))):
        builder = PromptBuilder(root / "model", spec=PROMPTS, max_images=4)
        assert sample.prompt_tokens == len(builder.expanded_ids(sample))
        text = processor.tokenizer.decode(builder.build(sample).token_ids)
        assert text.count("<|im_start|>user") == 1 + len(sample.history) // 2


PROMPTS = build_settings(compose([])).rollout.prompt_spec


def test_the_page_shows_what_was_said_before(root: Path) -> None:
    page = (root / "out" / "page.html").read_text()
    assert "&lt;image&gt;Who are they?" in page
    assert "\ufffc" not in page


def test_rows_survive_json_between_the_stages() -> None:
    raw = RawRow(source_id="7", task="match_text", question="Why?", answer="x", system="Be kind.", history=HISTORY)
    assert raw_from_json(json.loads(json.dumps(to_json(raw, [])))) == (raw, [])
    found = candidate(raw, history=(HISTORY[0], Turn(role="assistant", text=" Two\r\nplayers. ")), system=" Be kind.\r")
    assert found.history == (HISTORY[0], Turn(role="assistant", text="Two\nplayers."))
    assert found.system == "Be kind."
    assert candidate_from_json(json.loads(json.dumps(asdict(found)))) == found


def test_boxes_belong_to_the_only_images_that_are_shown() -> None:
    box = (RawBox(values=(1.0, 2.0, 30.0, 40.0)),)
    assert candidate(IOU, boxes=box, history=HISTORY).answer == "[1, 2, 30, 40]"
    with pytest.raises(Refused) as caught:
        normalise(
            RawRow(source_id="7", task="iou", question="the dog", boxes=box, history=HISTORY),
            [IMAGE, IMAGE],
            source="src",
            role="train",
            license="",
            config=PLAIN,
            limits=LIMITS,
            seed=1,
        )
    assert caught.value.reason is RejectReason.BOX_IMAGE_UNCLEAR
