"""Manifest: what it counts, and that it depends on the rows alone."""

import json
import pickle
import random

import pytest

from orchestration.data.manifest import Tally, bin_of, canonical_json
from tests.unit.data.built_dataset import candidate, difficulty, filled_tally, image, manifest, recipe, rejected


def content(*rows, function="matching"):
    tally = Tally()
    for row in rows:
        tally.select(row, function)
        tally.enter("select", row.role, row.source)
    return manifest(tally)["result"]


def test_the_funnel_says_for_every_source_how_many_rows_came_in_and_out_of_every_stage():
    [guard, boxes, charts] = manifest()["funnel"]
    assert (guard["role"], guard["stages"]) == ("guard", [{"stage": "read", "in": 1, "out": 1}])
    assert boxes["stages"][-1] == {"stage": "select", "in": 1, "out": 1}
    assert [(step["in"], step["out"]) for step in charts["stages"]] == [(7, 7), (7, 3), (3, 2)]


def test_a_row_that_gets_lost_between_two_stages_is_noticed():
    tally = filled_tally()
    tally.enter("deduplicate", "train", "charts/human")
    with pytest.raises(AssertionError, match="charts/human: 7 train rows left read, and 8 came to deduplicate"):
        manifest(tally)


def test_a_stage_that_rejects_more_rows_than_came_is_noticed():
    tally = Tally()
    tally.reject(rejected("1"))
    with pytest.raises(AssertionError, match="rejected 1 of 0"):
        manifest(tally)


def test_a_stage_that_the_manifest_does_not_list_is_noticed():
    tally = Tally()
    tally.enter("misread", "train", "boxes")
    with pytest.raises(AssertionError, match="misread"):
        manifest(tally)


def test_rejected_rows_are_counted_by_reason_with_its_meaning_and_the_three_smallest_as_examples():
    tally = filled_tally()
    tally.enter("read", "train", "charts/human", 2)
    tally.enter("deduplicate", "train", "charts/human", 2)
    for source_id in ("1", "6"):
        tally.reject(rejected(source_id))
    entry = next(e for e in manifest(tally)["rejected"] if e["reason"] == "duplicate")
    assert (entry["role"], entry["source"], entry["stage"]) == ("train", "charts/human", "deduplicate")
    assert entry["count"] == 5
    assert entry["meaning"] == "an earlier row has the same images and question"
    assert [e["source_id"] for e in entry["examples"]] == ["1", "2", "6"]
    assert entry["examples"][0] == {"source_id": "1", "detail": "detail 1", "question": "How many?"}


def test_duplicates_and_leaks_are_summed_over_sources():
    found = manifest()["deduplication"]
    assert found["duplicates"]["duplicate"] == 3
    assert found["duplicates"]["near_duplicate"] == 0
    assert found["leaks"] == {"leaked_image": 1, "leaked_question": 0}


def test_the_result_is_counted_by_task_source_function_stratum_and_answer_type():
    train = manifest()["result"]["train"]
    assert train["num_rows"] == 3
    assert train["by"]["task"] == {"chart": 2, "iou": 1}
    assert train["by"]["source"] == {"charts/human": 2, "boxes": 1}
    assert train["by"]["function"] == {"chart": 2, "grounding": 1}
    assert train["by"]["stratum"] == {"medium": 2, "not measured": 1}
    assert train["by"]["answer_type"] == {"year": 1, "number": 1, "not stated": 1}
    assert train["mix"] == {"chart": {"charts/human": 2}, "iou": {"boxes": 1}}
    assert train["chart_year_frac"] == 0.5


def test_letters_and_yes_no_are_counted_apart():
    rows = [candidate("match_mcq", letter) for letter in "ABA"] + [candidate("match_yesno", "yes")]
    found = content(*rows)["train"]
    assert found["by"]["letter"] == {"A": 2, "B": 1}
    assert found["by"]["yes_no"] == {"yes": 1}
    assert found["chart_year_frac"] is None


def test_boxes_are_counted_by_row_and_by_their_share_of_the_image():
    rows = [candidate("iou", answer) for answer in ("[0, 0, 100, 50]", "[[0, 0, 20, 10], [0, 0, 200, 100]]", "[]")]
    found = content(*rows)["train"]
    assert found["by"]["boxes_per_row"] == {"0": 1, "1": 1, "2": 1}
    areas = found["histograms"]["box_area_frac"]
    assert {e: n for e, n in zip(areas["edges"], areas["counts"], strict=True) if n} == {0.01: 1, 0.2: 1, 0.9: 1}


def test_captions_prompts_and_images_have_histograms_of_their_lengths():
    row = candidate("open", "a cat on a mat", prompt_tokens=64, images=(image(56, 112), image(300, 20)))
    found = content(row)["train"]["histograms"]
    filled = {name: [e for e, n in zip(h["edges"], h["counts"], strict=True) if n] for name, h in found.items()}
    assert filled == {"caption_words": [0], "prompt_tokens": [64], "longer_side": [112, 224]}


def test_roles_of_the_result_are_counted_apart():
    found = content(candidate("chart", "1"), candidate("chart", "1", role="held_out"))
    assert {role: part["num_rows"] for role, part in found.items()} == {"train": 1, "held_out": 1}


def test_difficulty_is_counted_before_and_after_selection():
    found = manifest()["difficulty"]
    before, after = (found["chart"][when]["mean"] for when in ("before", "after"))
    assert sum(before["counts"]) == 3
    assert before["counts"][-1] == 1
    assert sum(after["counts"]) == 2
    assert after["counts"][-1] == 0
    assert set(found) == {"chart"}


def test_held_out_rows_do_not_count_as_difficulty():
    tally = Tally()
    tally.measure(candidate("chart", "1", role="held_out", difficulty=difficulty(0.5)), "chart")
    assert manifest(tally)["difficulty"] == {}


def test_quotas_say_what_was_requested_found_and_is_missing():
    found = {(q["kind"], q["name"]): (q["requested"], q["found"], q["missing"]) for q in manifest()["quotas"]}
    assert found == {
        ("function", "chart"): (2, 2, 0),
        ("function", "grounding"): (3, 1, 2),
        ("source", "charts"): (10, 2, 8),
    }


def test_sources_say_adapter_role_licence_and_files():
    assert manifest()["sources"] == {
        "charts": {
            "adapter": "chartqa",
            "role": "train",
            "license": "gpl-3.0",
            "license_note": "",
            "files": {"train.json": "f1"},
        }
    }


def test_two_builds_in_other_folders_and_times_differ_in_times_alone():
    here = manifest(settings=recipe(out="here", raw="a", num_workers=1), times={"read_s": 1.0})
    there = manifest(settings=recipe(out="there", raw="b", num_workers=2), times={"read_s": 2.0})
    assert canonical_json(here) != canonical_json(there)
    del here["times"], there["times"]
    assert canonical_json(here) == canonical_json(there)


def test_every_other_setting_of_the_recipe_is_in_the_manifest():
    assert canonical_json(manifest()) != canonical_json(manifest(settings=recipe(chunk_rows=9)))
    assert manifest()["recipe"]["select"]["bands"]["chart"]["min_mean"] == 0.2


def test_tallies_add_up_to_the_same_manifest_in_whatever_parts_and_order():
    rows = [
        candidate("chart", str(i), source_id=str(i), difficulty=difficulty(i / 40), prompt_tokens=20 * i)
        for i in range(40)
    ]
    dropped = [rejected(str(i), question=f"q{i}") for i in range(40)]

    def part(numbers):
        tally = Tally()
        for i in numbers:
            tally.enter("read", "train", "charts/human")
            tally.enter("deduplicate", "train", "charts/human")
            if i % 2:
                tally.reject(dropped[i])
            else:
                tally.measure(rows[i], "chart")
                tally.select(rows[i], "chart")
        return tally

    whole = canonical_json(manifest(part(range(40))))
    for seed in range(5):
        order = random.Random(seed).sample(range(40), 40)
        merged = Tally()
        for start in range(0, 40, 7):
            merged.merge(pickle.loads(pickle.dumps(part(order[start : start + 7]))))
        assert canonical_json(manifest(merged)) == whole


def test_the_text_of_a_manifest_is_json_with_sorted_keys_and_rounded_floats():
    text = canonical_json({"b": 1 / 3, "a": (1, -0.0), "c": {"é": None}})
    assert text == '{\n "a": [\n  1,\n  0.0\n ],\n "b": 0.333333,\n "c": {\n  "é": null\n }\n}\n'
    assert json.loads(canonical_json(manifest()))["version"] == 1


def test_a_number_that_json_does_not_know_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


@pytest.mark.parametrize(("value", "place"), [(-1.0, 0), (0.0, 0), (0.0099, 0), (0.01, 1), (0.99, 11), (2.0, 11)])
def test_a_histogram_counts_a_value_in_the_bin_whose_edge_it_reaches(value, place):
    assert bin_of("mean", value) == place
