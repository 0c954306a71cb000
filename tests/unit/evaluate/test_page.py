"""Pages hold no live markup from a model, load shown images alone, and draw boxes in original pixels."""

import re
from html.parser import HTMLParser

import pytest

from orchestration.evaluate.benchmarks import PRESETS, apply_preset
from orchestration.evaluate.page import comparison_page, evaluation_page, worst_samples
from orchestration.evaluate.statistics import Resampling
from orchestration.evaluate.summary import SummarySettings, compare, summarise
from orchestration.page.figures import MODEL_COLOUR, REFERENCE_COLOUR, data_uri
from orchestration.workers.answers import EvaluatedSample
from rollout.records import ImageBytes
from tests.unit.evaluate.builders import completion, sample, tagged

EVIL = "</code><script>alert(1)</script><img src=x onerror='alert(1)'>\"'"
FEW = SummarySettings(resampling=Resampling(num_resamples=100))
BOX = {
    "task": "iou",
    "answer": "[100, 0, 200, 150]",
    "coord_mode": "norm1000",
    "image_sizes": ((400, 300),),
    "image_input_sizes": ((200, 150),),
}


class Shelf:
    """Gives an image for every id and remembers who asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, sample_id: str) -> list[ImageBytes]:
        self.asked.append(sample_id)
        return [ImageBytes(data=b"\x89PNG", width=400, height=300)]


class Tags(HTMLParser):
    """Collects the tags of a page and checks that they close."""

    VOID = ("meta", "br", "wbr", "img")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        assert not any(name.startswith("on") for name, _ in attrs)
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(rows: list[EvaluatedSample], shelf: Shelf, num_worst: int = 2) -> str:
    return evaluation_page(
        title=EVIL,
        summary=summarise(rows, FEW),
        preset=apply_preset(PRESETS["chartqa"], rows, FEW),
        samples=rows,
        image_of=shelf,
        num_worst=num_worst,
    )


def evil(name: str, value: float) -> EvaluatedSample:
    said = completion(value, text=tagged(EVIL), parsed_answer=EVIL)
    return sample(name, question=EVIL, answer=EVIL, source=EVIL, options=(EVIL,), metadata={"split": EVIL}, greedy=said)


def test_nothing_that_a_model_or_dataset_wrote_becomes_markup() -> None:
    rows = [evil("a", 0.0), evil("b", 1.0), sample("c", greedy=None, failure=EVIL)]
    page = page_of(rows, Shelf())
    changed = comparison_page(
        title=EVIL,
        comparisons=compare(rows[:2], [evil("a", 1.0), evil("b", 0.0)], settings=FEW),
        before=rows,
        after=[evil("a", 1.0), evil("b", 0.0)],
        image_of=Shelf(),
    )

    for text in (page, changed):
        assert not {"script", "img"} & Tags(text).seen
        assert "&lt;script&gt;" in text


def test_a_page_needs_nothing_from_elsewhere() -> None:
    page = page_of([sample("a")], Shelf())

    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "@import" not in page


def test_images_of_shown_samples_alone_are_asked_for() -> None:
    rows = [sample(f"{i}", i / 10) for i in range(10)]
    shelf = Shelf()

    page_of(rows, shelf, num_worst=3)

    assert shelf.asked == ["0", "1", "2"]


def test_the_lowest_scores_of_every_function_come_first() -> None:
    rows = [sample("a", 0.5), sample("b", 0.1), sample("c", 0.9, task="open"), sample("d", greedy=None, failure="x")]

    chosen = worst_samples(rows, 1)

    assert {name: [row.sample_id for row in found] for name, found in chosen.items()} == {
        "chart": ["b"],
        "open_ended": ["c"],
    }


@pytest.mark.parametrize(
    ("colour", "box"), [(REFERENCE_COLOUR, [100, 0, 100, 150]), (MODEL_COLOUR, [100, 0, 100, 150])]
)
def test_boxes_are_drawn_in_original_pixels(colour: str, box: list[float]) -> None:
    row = sample("a", 0.0, greedy=completion(0.0, text=tagged("[250, 0, 500, 500]")), **BOX)

    page = page_of([row], Shelf())

    drawn = next(rect for rect in re.findall("<rect [^>]*>", page) if f'stroke="{colour}"' in rect)
    assert [float(value) for value in re.findall(r' (?:x|y|width|height)="([0-9.]+)"', drawn)] == box


def test_a_page_of_a_row_that_lacks_its_image_size_is_still_written() -> None:
    said = completion(None, reason="bad_gold", text=tagged("[1, 2, 3, 4]"))
    row = sample("a", 0.0, **{**BOX, "image_sizes": ()}, greedy=completion(0.0, text=tagged("[1, 2, 3, 4]")))

    assert "reference: [100, 0, 200, 150]" in page_of([row], Shelf())
    assert "rows" in page_of([sample("b", greedy=said)], Shelf())


def test_losses_and_gains_stand_side_by_side() -> None:
    before = [sample("up", 0.0), sample("down", 1.0), sample("same", 0.5)]
    after = [sample("up", 1.0), sample("down", 0.2), sample("same", 0.5)]
    shelf = Shelf()

    page = comparison_page(
        title="t", comparisons=compare(before, after, settings=FEW), before=before, after=after, image_of=shelf
    )

    assert shelf.asked == ["down", "up"]
    assert page.index("Largest losses") < page.index("Largest gains")
    assert page.count('<div class="pair">') == 2
    Tags(page)


def test_boxes_of_both_sides_are_drawn_on_a_picture_each() -> None:
    sides = [
        [sample("a", value, greedy=completion(value, text=tagged(f"[{x}, 0, 500, 500]")), **BOX)]
        for value, x in ((0.0, 0), (1.0, 250))
    ]
    shelf = Shelf()

    page = comparison_page(
        title="t", comparisons=compare(*sides, settings=FEW), before=sides[0], after=sides[1], image_of=shelf
    )

    assert shelf.asked == ["a"]
    drawn = [rect for rect in re.findall("<rect [^>]*>", page) if f'stroke="{MODEL_COLOUR}"' in rect]
    assert [re.findall(r' x="([0-9.]+)"', rect) for rect in drawn] == [["0"], ["100"]]


def test_a_small_p_value_is_spelled_without_markup() -> None:
    before, after = ([sample(f"{i}", value) for i in range(20)] for value in (0.0, 1.0))

    page = comparison_page(
        title="t", comparisons=compare(before, after), before=before, after=after, image_of=Shelf(), num_shown=1
    )

    assert "<td>&lt;0.001</td>" in page


def test_a_long_completion_is_cut_and_says_so() -> None:
    page = page_of([sample("a", greedy=completion(0.0, text="x" * 50_000))], Shelf())

    assert "(50000 characters)" in page
    assert len(page) < 30_000


@pytest.mark.parametrize(
    ("start", "kind"), [(b"\xff\xd8\xff", "jpeg"), (b"RIFF0000WEBP", "webp"), (b"GIF89a", "gif"), (b"\x89PNG", "png")]
)
def test_an_image_is_embedded_as_what_it_is(start: bytes, kind: str) -> None:
    assert data_uri(ImageBytes(data=start, width=1, height=1)).startswith(f"data:image/{kind};base64,")
