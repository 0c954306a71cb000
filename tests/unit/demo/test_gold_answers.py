"""Every reference follows from the drawing: worked out again here from scene and question, by other means."""

import json
import random
import re

import numpy as np
import pytest

from orchestration.demo.drawn.pictures import COLOURS, SHAPES, Scene, Shape, random_chart, random_scene
from orchestration.demo.drawn.questions import NUM_OPTIONS, ask_box, ask_caption, ask_chart, ask_choice, ask_yes_no

NUM_SCENES = 300
SINGULAR = {**{f"{shape}s": shape for shape in SHAPES}, "crosses": "cross"}
SIDES = {"north": "latitude", "south": "latitude", "west": "longitude", "east": "longitude"}


def scenes() -> list[tuple[Scene, random.Random]]:
    return [(random_scene(random.Random(seed)), random.Random(-seed)) for seed in range(NUM_SCENES)]


def by_colour(scene: Scene) -> dict[str, Shape]:
    return {item.colour: item for item in scene.shapes}


def test_shapes_lie_in_quarters_of_their_own_and_share_no_colour() -> None:
    for scene, _ in scenes():
        assert len({item.quarter for item in scene.shapes}) == len(scene.shapes)
        assert len({item.colour for item in scene.shapes}) == len(scene.shapes)
        for item in scene.shapes:
            x1, y1, x2, y2 = item.box
            assert 0 <= x1 < x2 <= 112
            assert 0 <= y1 < y2 <= 112
            assert ("west" if x2 <= 56 else "east") == item.longitude
            assert ("north" if y2 <= 56 else "south") == item.latitude


def test_each_shape_fills_the_middle_of_its_box_and_nothing_outside() -> None:
    for scene, _ in scenes()[:60]:
        pixels = np.asarray(scene.draw())
        for item in scene.shapes:
            rows, columns = np.nonzero((pixels == COLOURS[item.colour]).all(axis=-1))
            x1, y1, x2, y2 = item.box
            assert x1 <= columns.min()
            assert columns.max() < x2
            assert y1 <= rows.min()
            assert rows.max() < y2
            # Tight: the ruling hides three pixels at the upper and left edge, a pointed side loses a few more.
            assert x2 - x1 == y2 - y1 == {"small": 28, "big": 56}[item.size]
            assert columns.max() - columns.min() >= x2 - x1 - 8
            assert rows.max() - rows.min() >= y2 - y1 - 8
            # Three pixels off the middle: the middle of a big shape may lie under a line of the ruling.
            assert tuple(pixels[(y1 + y2) // 2 + 3, (x1 + x2) // 2 + 3]) == COLOURS[item.colour]


def right_yes_no(scene: Scene, text: str) -> bool:
    seen = re.search(r"(?:there|see|show) an? (\w+) (\w+)\?", text)
    if seen:
        return any((item.colour, item.shape) == seen.groups() for item in scene.shapes)
    more = re.search(r"more (\w+) than (\w+)\?", text)
    if more:
        first, second = (sum(item.shape == SINGULAR[kind] for item in scene.shapes) for kind in more.groups())
        return first > second
    relation = re.search(r"the (\w+) \w+ (?:drawn )?(\w+) of the (\w+) one", text)
    assert relation is not None, text
    first, side, second = relation.groups()
    own, other = (getattr(by_colour(scene)[colour], SIDES[side]) for colour in (first, second))
    return own == side and other != side


def test_yes_and_no_follow_from_the_scene() -> None:
    for scene, rng in scenes():
        asked = ask_yes_no(scene, rng)
        assert (asked.solution.answer == "yes") == right_yes_no(scene, asked.question), asked.question


def test_the_right_option_is_the_one_that_fits() -> None:
    for scene, rng in scenes():
        asked = ask_choice(scene, rng)
        right = asked.solution.answer
        named = [item for item in scene.shapes if item.colour in asked.question.split("?")[0]]
        if not named:
            named = [item for item in scene.shapes if item.shape in asked.question.split("?")[0]]
        assert len(named) == 1, asked.question
        assert right in (named[0].colour, named[0].shape, named[0].quarter)
        assert len(set(asked.options)) == NUM_OPTIONS
        assert right in asked.options
        assert asked.question.endswith(f"? {', '.join(asked.options[:-1])} or {asked.options[-1]}")


def test_the_box_is_that_of_the_only_shape_that_the_words_fit() -> None:
    for scene, rng in scenes():
        asked = ask_box(scene, rng)
        words = set(re.findall(r"[a-z]+", asked.question))
        fitting = [
            item
            for item in scene.shapes
            if words & {*COLOURS} <= {item.colour}
            and words & {*SHAPES} <= {item.shape}
            and words & {"small", "big"} <= {item.size}
            and words & {*SIDES} <= {item.latitude, item.longitude}
        ]
        assert [list(item.box) for item in fitting] == [json.loads(asked.solution.answer)], asked.question


def test_the_caption_names_every_shape_once_and_no_other() -> None:
    for scene, rng in scenes():
        phrases = ask_caption(scene, rng).solution.answer.split(", ")
        assert len(phrases) == len(scene.shapes)
        for phrase, item in zip(phrases, scene.shapes, strict=True):
            assert {item.size, item.colour, item.shape, item.quarter} <= set(phrase.split())


def test_the_chart_answer_follows_from_its_values() -> None:
    for seed in range(NUM_SCENES):
        chart = random_chart(random.Random(seed))
        values = dict(zip(chart.colours, chart.values, strict=True))
        asked = ask_chart(chart, random.Random(-seed))
        named = re.findall("|".join(values), asked.question)
        if asked.answer_type == "number":
            assert asked.solution.answer == str(values[named[0]])
        else:
            extreme = max if re.search("most|highest|largest", asked.question) else min
            assert asked.solution.answer == extreme(values, key=values.__getitem__)


@pytest.mark.parametrize("kind", ["bar", "line", "pie"])
def test_charts_of_every_kind_show_larger_values_as_larger(kind: str) -> None:
    charts = [chart for chart in map(random_chart, map(random.Random, range(120))) if chart.kind == kind]

    assert len(charts) > 20
    for chart in charts:
        pixels = np.asarray(chart.draw())
        spots = {colour: np.nonzero((pixels == COLOURS[colour]).all(axis=-1)) for colour in chart.colours}
        # A dot stands higher, a bar reaches higher, a slice covers more.
        size = {c: len(rows) if kind == "pie" else 112 - int(rows.min()) for c, (rows, _) in spots.items()}
        by_value = [colour for _, colour in sorted(zip(chart.values, chart.colours, strict=True))]
        assert sorted(size, key=size.__getitem__) == by_value
