"""LLaVA, ShareGPT4V and DOCCI against rows worked by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.sources.answers import without_opening
from orchestration.data.sources.rows import RawImage, RawRow
from orchestration.settings.errors import ConfigError, DataError
from rollout.records import Turn
from tests.unit.data.sources.reading import GOLDEN, PNG, bad, cell, good, read, write_table


def test_sharegpt4v_places_images_and_names_coco_pictures() -> None:
    rows = read("sharegpt4v", GOLDEN / "sharegpt4v")
    assert rows[0] == RawRow(
        source_id="000000000009",
        task="open",
        question="What do you see happening in this image?\n\ufffc",
        answer="The image shows a square on a plain ground.",
        images=(RawImage(path="coco/train2017/000000000009.jpg", image_id="coco/9"),),
    )
    assert (good(rows)[1].question, good(rows)[1].images[0].image_id) == ("Describe it.", "")
    part = "sharegpt4v_instruct_gpt4-vision_cap100k"
    assert bad(rows) == [(f"{part}/2", "text_only"), (f"{part}/3", "missing_field")]


def test_captions_lose_their_boilerplate_openings_on_demand() -> None:
    rows = good(read("sharegpt4v", GOLDEN / "sharegpt4v", strip_openings=True))
    assert [row.answer for row in rows] == ["A square on a plain ground.", "A dog in the grass."]


@pytest.mark.parametrize(
    ("caption", "stripped"),
    [
        ("The picture depicts two men.", "Two men."),
        ("In this photo, a cat sleeps.", "A cat sleeps."),
        ("This is a photo of a blue square.", "A blue square."),
        ("The images of saints hang there.", "The images of saints hang there."),
        ("", ""),
    ],
)
def test_an_opening_is_taken_off_only_where_it_stands(caption: str, stripped: str) -> None:
    assert without_opening(caption) == stripped


def test_llava_takes_the_first_turn_or_all() -> None:
    root = GOLDEN / "llava"
    first = read("llava", root, annotations=["detail_23k.json"], images="coco/train2017")
    assert first[0] == RawRow(
        source_id="000000000009",
        task="open",
        question="Write a detailed description of the given image.\n\ufffc",
        answer="In this image, a square stands alone.",
        images=(RawImage(path="coco/train2017/000000000009.jpg", image_id="coco/9"),),
    )
    assert len(good(first)) == 1
    assert bad(first) == [("detail_23k/1", "unreadable_row")]
    every = good(read("llava", root, annotations=["detail_23k.json"], images="", turns="all", task="match_text"))
    assert [(row.source_id, row.task, row.answer, row.history) for row in every] == [
        ("000000000009", "match_text", "In this image, a square stands alone.", ()),
        ("000000000009-1", "match_text", "Blue.", ()),
    ]
    told = good(read("llava", root, annotations=["detail_23k.json"], images="", turns="history"))
    assert [(row.question, row.answer, row.history) for row in told[1:]] == [
        (
            "What colour is it?",
            "Blue.",
            (
                Turn(role="user", text="Write a detailed description of the given image.\n\ufffc"),
                Turn(role="assistant", text="In this image, a square stands alone."),
            ),
        )
    ]


def lines(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]


def test_llava_reads_lines_text_and_several_images(tmp_path: Path) -> None:
    several = ["vg/VG_100K/1.jpg", "b.jpg"]
    lines(
        tmp_path / "a.jsonl",
        {"conversations": talk("Hi", " Ho ")},
        {"id": 7, "image": several, "conversations": talk("Hi <image> or <image>", " Ho ")},
        {"id": 7, "image": "c.jpg", "conversations": talk("Hi <image>", " Ho ")},
        {"id": 8, "image": several, "conversations": talk("Hi <image>", " Ho ")},
        {"id": 9, "image": "c.jpg", "conversations": talk("Hi", "Ho")[::-1]},
    )
    rows = read("llava", tmp_path, annotations=["a.jsonl"], text_only=True)
    assert [(row.source_id, row.question, [image.image_id for image in row.images]) for row in good(rows)] == [
        ("a/1", "Hi", []),
        ("7", "Hi \ufffc or \ufffc", ["vg/1", ""]),
        ("7#2", "Hi \ufffc", [""]),
    ]
    assert [reason for _, reason in bad(rows)] == ["markers_unequal", "missing_field"]


def test_a_llava_turn_asks_with_its_own_images_or_those_shown_before(tmp_path: Path) -> None:
    row = {
        "image": ["1.jpg", "2.jpg"],
        "conversations": talk("<image>\nWho?", "He.", "And?", "She.", "<image> Where?", "Here."),
    }
    lines(tmp_path / "a.jsonl", row)
    found = {
        turns: [
            (row.question, [image.path for image in row.images], [turn.text for turn in row.history])
            for row in good(read("llava", tmp_path, annotations=["a.jsonl"], turns=turns))
        ]
        for turns in ("all", "history")
    }
    assert found["all"] == [("Who?", ["1.jpg"], []), ("And?", ["1.jpg"], []), ("Where?", ["2.jpg"], [])]
    assert found["history"] == [
        ("Who?", ["1.jpg"], []),
        ("And?", ["1.jpg"], ["\ufffcWho?", "He."]),
        ("Where?", ["1.jpg", "2.jpg"], ["\ufffcWho?", "He.", "And?", "She."]),
    ]


def test_conversation_sources_name_their_missing_files() -> None:
    with pytest.raises(ConfigError, match=r"options.annotations is missing"):
        read("llava", GOLDEN / "llava")
    with pytest.raises(DataError, match=r"holds no chat.json; expected layout"):
        read("llava", GOLDEN / "llava", annotations=["chat.json"])
    with pytest.raises(DataError, match=r"cap100k.json; expected layout"):
        read("sharegpt4v", GOLDEN / "llava")


def test_docci_asks_one_question_and_reads_past_a_broken_line() -> None:
    rows = read("docci", GOLDEN / "docci")
    assert rows[0] == RawRow(
        source_id="train_00000",
        task="open",
        question="Describe this image in detail.",
        answer="An indoor angled down medium close-up front view of a square.",
        images=(RawImage(path="images/train_00000.jpg", image_id="docci/train_00000"),),
    )
    assert [row.source_id for row in good(rows)] == ["train_00000", "train_00003"]
    assert bad(rows) == [
        ("docci_descriptions/3", "missing_field"),
        ("docci_descriptions.jsonlines/4", "unreadable_row"),
    ]
    assert good(read("docci", GOLDEN / "docci", strip_openings=True))[1].answer == "A blue square."
    with pytest.raises(DataError, match=r"docci_descriptions.jsonlines and no train-\*.parquet; expected layout"):
        read("docci", GOLDEN / "llava")


def test_docci_tables_hold_their_pictures(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image": cell(), "example_id": "test_00001", "description": "The picture shows a red square."},
        {"image": cell(), "example_id": "test_00002", "description": None},
    ]
    write_table(tmp_path / "data" / "test-00000-of-00001.parquet", rows)
    found = read("docci", tmp_path, split="test")
    assert found[0] == RawRow(
        source_id="test_00001",
        task="open",
        question="Describe this image in detail.",
        answer="The picture shows a red square.",
        images=(RawImage(data=PNG, image_id="docci/test_00001"),),
    )
    assert bad(found) == [("data/test-00000-of-00001/1", "missing_field")]
    assert good(read("docci", tmp_path, split="test", strip_openings=True))[0].answer == "A red square."
