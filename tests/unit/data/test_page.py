"""The page of a dataset: well-formed, self-contained, and safe whatever the rows say."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from orchestration.data.manifest import Tally, canonical_json
from orchestration.data.page import dataset_page
from orchestration.data.sources.rows import RejectReason
from orchestration.page.figures import BAND_COLOUR, REFERENCE_COLOUR, histogram_svg, stacked_bars_svg
from rollout.records import ImageBytes, Sample, Turn
from tests.unit.data.built_dataset import candidate, difficulty, filled_tally, manifest, recipe, rejected

VOID = {"meta", "br"}
PNG = b"\x89PNG rest"
ATTACK = "<script>alert(1)</script> & \"'"


class Balance(HTMLParser):
    """Keeps open tags; notes every closing tag that closes another one than the last opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.seen: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if data.strip():
            self.text.append(data)


def parsed(page: str) -> Balance:
    balance = Balance()
    balance.feed(page)
    balance.close()
    return balance


def sample(task: str = "chart", answer: str = "3", **changes) -> Sample:
    fields = {
        "sample_id": "s",
        "source": "charts",
        "question": "How many?",
        "images": (ImageBytes(data=PNG, width=240, height=120),),
    }
    return Sample(task=task, answer=answer, **{**fields, **changes})


def test_every_tag_of_the_page_is_closed_in_turn():
    page = dataset_page(manifest(), [sample(options=("a", "b")), sample("iou", "[0, 0, 9, 9]")])
    found = parsed(page)
    assert (found.open, found.wrong) == ([], [])
    assert {"svg", "table", "details", "image", "ol"} <= found.seen


def test_the_page_shows_what_was_said_before_the_question_and_where_images_stand():
    turns = (Turn(role="user", text=f"\ufffcWho? {ATTACK}"), Turn(role="assistant", text="He."))
    page = dataset_page(manifest(), [sample(system="Be kind.", history=turns, question="Is \ufffc he?")])
    found = parsed(page)
    assert (found.wrong, "<script" in page, "\ufffc" in page) == ([], False, False)
    text = " ".join(" ".join(found.text).split())
    assert "system: Be kind. user: <image>Who? <script>alert(1)</script>" in text
    assert "assistant: He. Is <image> he?" in text


def test_the_check_of_tags_notices_an_open_one():
    assert parsed("<p><b></p>").wrong == ["p"]


def test_an_empty_dataset_has_a_page():
    found = parsed(dataset_page(manifest(Tally()), []))
    assert (found.open, found.wrong) == ([], [])
    assert "no rows in 1 files" in "".join(found.text)


def test_nothing_on_the_page_is_loaded_from_elsewhere():
    page = dataset_page(manifest(), [sample()])
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "url(" not in page


def test_text_of_rows_and_sources_cannot_become_markup():
    tally = filled_tally()
    tally.enter("read", "train", ATTACK)
    tally.enter("deduplicate", "train", ATTACK)
    tally.reject(rejected(ATTACK, source=ATTACK, detail=ATTACK, question=ATTACK))
    row = candidate("chart", ATTACK, source=ATTACK, answer_type=ATTACK, stratum=ATTACK, license=ATTACK)
    tally.select(row, "chart")
    shown = sample("match_mcq", ATTACK, question=ATTACK, source=ATTACK, options=(ATTACK,), stratum=ATTACK)
    page = dataset_page(manifest(tally, settings=replace(recipe(), name=ATTACK)), [shown])
    assert "<script" not in page
    assert parsed(page).wrong == []
    assert "".join(parsed(page).text).count("<script>alert(1)</script>") >= 10


def test_reference_boxes_are_drawn_in_green_in_pixels_of_the_image():
    page = dataset_page(manifest(), [sample("iou", '[{"bbox_2d": [10, 20, 30, 60], "label": "dog"}]')])
    [box] = [rect for rect in re.findall("<rect [^>]*>", page) if f'stroke="{REFERENCE_COLOUR}"' in rect]
    assert 'x="10" y="20" width="20" height="40"' in box


@pytest.mark.parametrize(("data", "kind"), [(PNG, "png"), (b"\xff\xd8x", "jpeg"), (b"RIFF....WEBP", "webp")])
def test_images_are_embedded_as_what_they_are(data, kind):
    page = dataset_page(manifest(), [sample(images=(ImageBytes(data=data, width=2, height=2),))])
    assert f'href="data:image/{kind};base64,' in page


def test_a_card_says_how_difficult_its_row_is():
    page = dataset_page(manifest(), [sample(difficulty=difficulty(0.25), stratum="hard"), sample()])
    assert "mean reward 0.25 ± 0.30 of 8 completions, 25% right, format 1.00" in page
    assert "chart · charts · hard" in page
    assert page.count("difficulty not measured") == 1


def test_the_funnel_shows_what_is_left_after_every_stage_and_what_went():
    text = parsed(dataset_page(manifest(), [])).text
    place = text.index("charts/human (train)")
    assert text[place + 1 : place + 5] == ["7", "7", "3 (-4)", "2 (-1)"]


def test_reasons_are_shown_with_their_meaning_most_frequent_first():
    page = dataset_page(manifest(), [])
    assert f'title="{RejectReason.DUPLICATE.meaning}">duplicate</span>' in page
    assert page.index(">duplicate</span>") < page.index(">leaked_image</span>")


def test_rare_values_are_summed_up():
    tally = Tally()
    for number in range(15):
        tally.select(candidate("chart", "1", stratum=f"s{number:02}"), "chart")
    text = parsed(dataset_page(manifest(tally), [])).text
    assert text[text.index("s11") + 3 : text.index("s11") + 6] == ["others", "3", "20.0%"]


def test_missing_rows_of_a_quota_stand_out():
    page = dataset_page(manifest(), [])
    assert '<td>function grounding</td><td>3</td><td>1</td><td><span class="short">2</span></td>' in page
    assert "<td>function chart</td><td>2</td><td>2</td><td>0</td>" in page


def test_difficulty_shows_the_band_of_its_function():
    page = dataset_page(manifest(), [])
    assert "chart: mean reward" in page
    assert "<title>kept: 0.2 to 0.99</title>" in page
    assert "<title>kept: 0.01 to 0.99</title>" in page
    assert "before selection 1</title>" in page


def test_the_page_can_be_made_from_the_manifest_file():
    built = manifest()
    assert dataset_page(json.loads(canonical_json(built)), []) == dataset_page(built, [])


def test_bars_of_a_histogram_are_as_high_as_their_counts():
    svg = histogram_svg("t", {"edges": [0, 1, 2], "counts": [4, 0, 1]})
    heights = [float(h) for h in re.findall(r'height="([0-9.]+)" fill="#3b', svg)]
    assert heights == pytest.approx([90, 22.5])
    assert "<title>0 to 1: 4</title>" in svg
    assert "<title>from 2: 1</title>" in svg


def test_a_band_is_shaded_from_value_to_value():
    svg = histogram_svg("t", {"edges": [0, 0.5, 1], "counts": [0, 0, 0]}, band=(0.25, 1.0))
    [ground] = [rect for rect in re.findall("<rect [^>]*>", svg) if BAND_COLOUR in rect]
    assert 'x="53.3"' in ground
    assert 'width="160.0"' in ground


def test_stacked_bars_share_one_scale_and_a_source_has_one_colour():
    svg = stacked_bars_svg({"chart": {"a": 30, "b": 10}, "iou": {"b": 20}})
    bars = re.findall(r'width="([0-9.]+)" height="22" fill="([^"]*)"><title>(.): (\d+)<', svg)
    assert [(part, int(count)) for _, _, part, count in bars] == [("a", 30), ("b", 10), ("b", 20)]
    assert [float(width) for width, _, _, _ in bars] == pytest.approx([592.5, 197.5, 395.0])
    assert bars[1][1] == bars[2][1] != bars[0][1]
