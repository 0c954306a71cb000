"""Rows as users hand them over, by a mapping and by the one argument data.train=PATH: images, turns, boxes, markers.

Tasks, options and answers are in test_users_answers.py. Files of other forms and cut ones: sources/test_files.py and
sources/test_broken_files.py; a source that loses its rows, cut downloads and plans without held-out rows:
test_losses.py; transparent pictures: test_images.py.
"""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.data.sources.rows import Candidate, RejectReason
from rollout.records import readable
from tests.unit.data.asking import both, by_mapping, by_path, draw, kept, reason, size, write_rows
from tests.unit.data.pictures import encoded, picture

CHART = {"constant": "chart"}
TEXT = {"constant": "match_text"}
PLAIN = {"question": "q", "answer": "a", "images": "image", "task": CHART}
SWIFT = {"question": "messages.0.content", "answer": "solution", "images": "images", "task": CHART}
PNG = encoded(picture(seed=7))
JPEG = encoded(picture(seed=7), "JPEG")


@pytest.mark.parametrize("is_folder", [True, False])
def test_pictures_behind_links_are_read_where_a_setting_names_their_folder(is_folder: bool, tmp_path: Path) -> None:
    """A01: a folder that several sources share, and links to single files as in the hub's cache."""
    draw(tmp_path / "shared" / "000000000042.jpg", width=80)
    link = tmp_path / "own" / ("val2017" if is_folder else "000000000042.jpg")
    link.parent.mkdir()
    link.symlink_to(tmp_path / "shared" if is_folder else tmp_path / "shared" / link.name)
    name = "val2017/000000000042.jpg" if is_folder else link.name
    rows = [{"image": name, "q": "How many boats?", "a": "4"}]
    for found in both(tmp_path / "own", rows, PLAIN):
        assert isinstance(found[0], tuple)
        assert found[0][0] is RejectReason.PATH_OUTSIDE_ROOT
        assert f"leads to {tmp_path / 'shared'}; data.recipe.image_roots=[" in found[0][1]
    for found in both(tmp_path / "own", rows, PLAIN, f"data.recipe.image_roots=[{tmp_path / 'shared'}]"):
        assert size(kept(found[0])) == [(80, 48)]
    (row,) = by_path(tmp_path / "own" / "rows.jsonl", f"data.image_roots=[{tmp_path / 'shared'}]")
    assert size(kept(row)) == [(80, 48)]


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_absolute_paths_lead_into_the_source_or_a_named_folder(form: str, tmp_path: Path) -> None:
    """A02."""
    draw(tmp_path / "own" / "in.jpg", width=80)
    draw(tmp_path / "elsewhere" / "out.jpg", width=96)
    rows = [
        {
            "messages": [{"role": "user", "content": f"<image>How many people stand at {place}?"}],
            "images": [form.format(tmp_path / place)],
            "solution": "3",
        }
        for place in ("own/in.jpg", "elsewhere/out.jpg")
    ]
    for inside, outside in both(tmp_path / "own", rows, SWIFT):
        assert size(kept(inside)) == [(80, 48)]
        assert reason(outside) == "path_outside_root"
    for found in both(tmp_path / "own", rows, SWIFT, f"data.recipe.image_roots=[{tmp_path / 'elsewhere'}]"):
        assert [size(kept(row)) for row in found] == [[(80, 48)], [(96, 48)]]
        assert kept(found[1]).question == "How many people stand at elsewhere/out.jpg?"


BASE64 = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "image",
    [
        f"data:image/png;base64,{BASE64}",
        f"DATA:image/png;charset=utf-8;base64,{BASE64}",
        f"data:application/octet-stream;base64,{BASE64}",
        f"data:;base64,{BASE64}",
        f"base64,{BASE64}",
        BASE64,
        BASE64.rstrip("="),
        "\n".join(BASE64[at : at + 76] for at in range(0, len(BASE64), 76)),
        base64.b64encode(JPEG).decode(),
        base64.urlsafe_b64encode(JPEG).decode(),
        {"bytes": BASE64, "path": None},
        {"url": f"data:image/png;base64,{BASE64}"},
        [f"data:image/png;base64,{BASE64}"],
    ],
)
def test_pictures_in_base64_are_read(image: object, tmp_path: Path) -> None:
    """A06, image_forms."""
    for (row,) in both(tmp_path, [{"image": image, "q": "How many?", "a": "2"}], PLAIN):
        assert size(kept(row)) == [(64, 48)]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (f"data:image/png;base64,{BASE64[:120]}", "image_truncated"),
        ("data:image/png;base64,@@@@", "image_corrupt"),
        ("data:image/png,%89PNG", "image_missing"),
        ("http://127.0.0.1:1/a.png", "image_missing"),
        ("scan 42", "image_missing"),
    ],
)
def test_what_is_no_picture_is_refused_and_never_left_out(image: str, expected: str, tmp_path: Path) -> None:
    for (row,) in both(tmp_path, [{"image": image, "q": "How many?", "a": "2"}], PLAIN):
        assert reason(row) == expected


def test_rows_without_a_picture_are_text(tmp_path: Path) -> None:
    """text_only."""
    rows = [{"q": "What is six plus one in words?", "a": "seven", "image": ""}]
    mapping = {**PLAIN, "task": TEXT}
    assert reason(by_mapping(write_rows(tmp_path / "rows.jsonl", rows).parent, mapping)[0]) == "missing_field"
    for (row,) in both(tmp_path, rows, {**mapping, "images": "image?"}):
        assert (kept(row).images, kept(row).answer) == ((), "seven")


TEXT_PART, IMAGE_PART = {"type": "text", "text": "How many goats?"}, {"type": "image"}


@pytest.mark.parametrize(
    ("turns", "question", "system"),
    [
        ([{"role": "user", "content": [IMAGE_PART, TEXT_PART]}], "How many goats?", ""),
        ([{"role": "user", "content": [TEXT_PART, IMAGE_PART]}], "How many goats?<image>", ""),
        ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": [IMAGE_PART, TEXT_PART]}],
         "How many goats?", "Be brief."),
        ([{"role": "user", "content": [{"type": "image"}, {"type": "text", "value": "How many goats?"}]}],
         "How many goats?", ""),
        ([{"role": "system", "content": [{"type": "text", "value": "Be brief."}]},
          {"role": "user", "content": "<image>How many goats?"}], "How many goats?", "Be brief."),
    ],
)  # fmt: skip
def test_the_user_turn_asks_in_its_own_order(turns: Any, question: str, system: str, tmp_path: Path) -> None:
    """A07, A08."""
    draw(tmp_path / "1.jpg")
    rows = [{"prompt": turns, "images": ["1.jpg"], "solution": "2"}]
    mapping = {"question": "prompt", "answer": "solution", "images": "images", "task": CHART}
    for (row,) in both(tmp_path, rows, mapping):
        assert (readable(kept(row).question), kept(row).system) == (question, system)
        assert len(kept(row).images) == 1


def test_parts_hold_their_images_under_the_names_that_frameworks_give_them(tmp_path: Path) -> None:
    draw(tmp_path / "1.jpg", width=80)
    parts = [
        {"type": "image", "image": "1.jpg"},
        {"type": "image_url", "image_url": {"url": "1.jpg"}},
        {"type": "input_image", "image_url": "1.jpg"},
        {"type": "image_url", "value": "1.jpg"},
        {"type": "image", "path": "1.jpg"},
        {"type": "image", "url": f"file://{tmp_path / '1.jpg'}"},
        {"image": "1.jpg"},
    ]
    rows = [
        {"messages": [{"role": "user", "content": [part, {"type": "text", "text": f"How many in {place}?"}]}], "a": "2"}
        for place, part in enumerate(parts)
    ]
    for found in both(tmp_path, rows, {"question": "messages", "answer": "a", "task": CHART}):
        assert [size(kept(row)) for row in found] == [[(80, 48)]] * len(parts)


def test_a_system_turn_is_never_the_question(tmp_path: Path) -> None:
    """A08: some rows have one, and some not."""
    draw(tmp_path / "1.jpg")
    user = [{"role": "user", "content": "<image>How many geese are there?"}]
    told = [{"role": "system", "content": "You are kind."}, *user]
    rows = [{"messages": turns, "images": ["1.jpg"], "solution": "2"} for turns in (told, user)]
    first, second = both(tmp_path, rows, SWIFT)
    assert [reason(first[0]), kept(first[1]).question] == ["unreadable_row", "How many geese are there?"]
    assert [(kept(row).system, kept(row).question) for row in second] == [
        ("You are kind.", "How many geese are there?"),
        ("", "How many geese are there?"),
    ]


@pytest.mark.parametrize(
    ("objects", "text", "question", "answer"),
    [
        ({"ref": ["kettle"], "bbox": [[30.5, 7, 35, 22]]}, "Find the <ref-object> here", "Find the kettle here",
         "[30.5, 7, 35, 22]"),
        ({"ref": ["kettle"], "bbox": [[0.25, 0.5, 0.75, 1]], "bbox_type": "norm1"}, "Where is the <ref-object>?",
         "Where is the kettle?", "[50, 50, 150, 100]"),
        ({"ref": ["kettle"], "bbox": [[250, 500, 750, 1000]], "bbox_type": "norm1000"}, "Where is the <ref-object>?",
         "Where is the kettle?", "[50, 50, 150, 100]"),
        ({"ref": ["cup", "jug"], "bbox": [[1, 2, 30, 40], [50, 6, 70, 80]]}, "Find <ref-object> and <ref-object>.",
         "Find cup and jug.",
         '[{"bbox_2d": [1, 2, 30, 40], "label": "cup"}, {"bbox_2d": [50, 6, 70, 80], "label": "jug"}]'),
    ],
)  # fmt: skip
def test_objects_of_ms_swift_name_what_is_asked_for(
    objects: dict[str, Any], text: str, question: str, answer: str, tmp_path: Path
) -> None:
    """A11: labels and frame are read from beside the boxes, by a mapping of the boxes too."""
    draw(tmp_path / "1.jpg", width=200, height=100)
    turns = [{"role": "user", "content": f"<image>{text}"}, {"role": "assistant", "content": "<bbox>"}]
    rows = [{"messages": turns, "images": ["1.jpg"], "objects": objects}]
    mapping = {
        "question": "messages.0.content",
        "boxes": "objects.bbox",
        "images": "images",
        "task": {"constant": "iou"},
    }
    for (row,) in both(tmp_path, rows, mapping):
        assert (kept(row).question, kept(row).answer) == (question, answer)


@pytest.mark.parametrize("objects", [{"ref": [], "bbox": [[1, 2, 30, 40]]}, {"bbox": [[1, 2, 30, 40]]}])
def test_an_object_without_a_name_is_refused(objects: dict[str, Any], tmp_path: Path) -> None:
    draw(tmp_path / "1.jpg", width=200, height=100)
    turns = [{"role": "user", "content": "<image>Find the <ref-object>"}, {"role": "assistant", "content": "<bbox>"}]
    mapping = {
        "question": "messages.0.content",
        "boxes": "objects.bbox",
        "images": "images",
        "task": {"constant": "iou"},
    }
    for (row,) in both(tmp_path, [{"messages": turns, "images": ["1.jpg"], "objects": objects}], mapping):
        assert reason(row) == "placeholder_in_text"


def test_shares_of_an_image_are_boxes_by_path_and_refused_as_pixels(tmp_path: Path) -> None:
    """boxes."""
    draw(tmp_path / "1.png", width=640, height=480)
    rows = [{"q": "Where is the jug?", "boxes": [0.25, 0.25, 0.5, 0.75], "image": "1.png"}]
    by_recipe, alone = both(
        tmp_path, rows, {"question": "q", "boxes": "boxes", "images": "image", "task": {"constant": "iou"}}
    )
    assert isinstance(by_recipe[0], tuple)
    assert by_recipe[0][0] is RejectReason.BOX_MALFORMED
    assert "box_frame: {constant: norm1}" in by_recipe[0][1]
    assert kept(alone[0]).answer == "[160, 120, 320, 360]"


@pytest.mark.parametrize(
    ("question", "images", "expected"),
    [
        ("Is <image> like <image>?", 1, "markers_unequal"),
        ("<image><image><image> Which of the three is green?", 1, "markers_unequal"),
        ("<image>Which?", 2, "markers_unequal"),
        ("Compare <image> with <image>: which is green?", 2, "Compare <image> with <image>: which is green?"),
        ("<image>\n<image>\nWhich is green?", 2, "Which is green?"),
        ("<IMAGE>Which is green?", 1, "Which is green?"),
    ],
)
def test_markers_and_images_agree(question: str, images: int, expected: str, tmp_path: Path) -> None:
    """A12, markers; the conversation of A12 is in sources/test_turns.py."""
    draw(tmp_path / "1.jpg", tmp_path / "2.jpg")
    rows = [{"images": ["1.jpg", "2.jpg"][:images], "problem": question, "answer": "first"}]
    for (row,) in both(tmp_path, rows, {"question": "problem", "answer": "answer", "images": "images", "task": TEXT}):
        assert expected == (readable(row.question) if isinstance(row, Candidate) else reason(row))


@pytest.mark.parametrize("write", [json.dumps, repr])
@pytest.mark.parametrize("more", [{}, {"images": ["1.jpg"]}])
def test_a_message_that_is_a_text_is_read_with_its_image(write: Any, more: dict[str, Any], tmp_path: Path) -> None:
    """A13: JSON or Python; a column that names the same image again is not another one."""
    draw(tmp_path / "1.jpg", width=80)
    parts = [{"type": "image", "image": "1.jpg"}, {"type": "text", "text": "How many owls are there?"}]
    rows = [{"id": "0", "message": write([{"role": "user", "content": parts}]), "answer": "1", **more}]
    mapping = {"id": "id", "question": "message", "answer": "answer", "task": {"constant": "math"}}
    for (row,) in both(tmp_path, rows, {**mapping, **({"images": "images"} if more else {})}):
        assert (kept(row).question, size(kept(row))) == ("How many owls are there?", [(80, 48)])
