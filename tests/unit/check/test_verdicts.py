"""Each fault, planted in facts that are in order otherwise, is named in its own row and nowhere else."""

from dataclasses import replace
from typing import Any

import pytest

from orchestration.check.facts import Facts, outliers
from orchestration.check.verdicts import judge
from rollout.records import EncodedPicture
from tests.unit.check.healthy import (
    BLUE,
    EXPECTED,
    GIB,
    NAMES,
    RED,
    encoded,
    faults,
    healthy,
    memory,
    node,
    prompt,
    sampled,
    score,
    weights,
)

NO_PIXELS = EncodedPicture(grid=RED.grid, pixels=(70560, 0, 0), num_values=1)
OFF = {"difference": (0.3, 0.4)}


def with_engine(name: str, *pictures: EncodedPicture, engine: Any) -> list[Any]:
    kept = [one for one in healthy().prompts if one.name != name]
    return [*kept, prompt(name, *pictures, engine=engine)]


def with_scores(**off: dict[str, Any]) -> list[Any]:
    """Scores in which engine 1 is off for some prompts."""
    names = ("text", "one picture", "two pictures")
    kept = [score(name, 0) for name in names]
    return [*kept, *(score(name, 1, **off.get(name.replace(" ", "_"), {})) for name in names)]


PLANTED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "another version": (
        {"nodes": [node("a"), node("b", versions={"torch": "2.11.0", "vllm": "0.32.0"})]},
        {"versions": "torch 2.11.0 on b, 2.13.0 on a"},
    ),
    "another model folder": (
        {"nodes": [node("a"), node("b", model_files={"config.json": "cd"})]},
        {"model folder": "config.json cd on b, ab on a, model.safetensors missing on b"},
    ),
    "run_dir that one machine does not share": (
        {"nodes": [node("a"), node("b", is_seen=False)]},
        {"run_dir": "not shared with b"},
    ),
    "one slow link between ranks": (
        {"rank_links_s": {1: 0.1, 2: 0.1, 3: 2.0}, "places": {"rank 3": "10.0.0.9"}},
        {"learner links": "rank 3 on 10.0.0.9 has 0.01 GB/s"},
    ),
    "one slow link to an engine": (
        {"engine_links_s": {0: 1.0, 1: 1.1, 2: 9.0}},
        {"weights to each engine": "engine 2 has 0.11 GB/s"},
    ),
    "one slow engine": (
        {"sampled": [sampled(0), sampled(1, seconds=4.0)]},
        {"engine speed": "engine 1 on 10.0.0.2 takes 4.00 s"},
    ),
    "one tensor unsent": (
        {"weights": [weights(0, wrong={0: (), 1: (NAMES[2],)}), weights(1)]},
        {"first weights": "engine 1 holds other values in 1 tensor: visual.merger.weight"},
    ),
    "a tensor that nothing is sent for": (
        {"weights": [weights(0, unsent={0: (NAMES[0],), 1: ()}), weights(1)]},
        {"first weights": "engine 0 never gets 1 tensor: lm_head.weight"},
    ),
    "stale weights": (
        {"weights": [weights(0), weights(1, wrong={0: NAMES, 1: ()}, stale={0: NAMES, 1: ()})]},
        {"weights after a step": "engine 0 keeps the weights before in 3 tensors"},
    ),
    "wrong template": (
        {"prompts": with_engine("text", engine=encoded(template="00", token_ids=(1, 9, 3)))},
        {"chat template": "engine 1: 00", "prompt tokens": "text: engine 1 has 3 tokens, rank 0 2, other from 1 on"},
    ),
    "pictures of another size": (
        {
            "prompts": with_engine(
                "one picture", RED,
                engine=encoded(replace(RED, grid=(1, 4, 8)), input_sizes=((112, 56),)),
            )
        },
        {"pictures": "one picture: engine 1 sees sizes 1x4x8, rank 0 1x6x10"},
    ),
    "pictures in another order": (
        {"prompts": with_engine("two pictures", RED, BLUE, engine=encoded(BLUE, RED))},
        {"pictures": "two pictures: engine 1 has the pictures in another order"},
    ),
    "pictures without pixels": (
        {"prompts": with_engine("one picture", RED, engine=encoded(NO_PIXELS))},
        {"pictures": "one picture: engine 1 has pictures without pixels"},
    ),
    "pictures of other pixels": (
        {"prompts": with_engine("one picture", RED, engine=encoded(BLUE))},
        {"pictures": "one picture: engine 1 has other pixels"},
    ),
    "boxes read in another size": (
        {"prompts": with_engine("one picture", RED, engine=encoded(RED, input_sizes=((150, 90),)))},
        {"box frame": "one picture: engine 1 says 150x90, the model sees 140x84"},
    ),
    "a placeholder sampled": (
        {"sampled": [sampled(0), sampled(1, banned=("<|image_pad|>",))]},
        {"sampled tokens": "engine 1, text: <|image_pad|>"},
    ),
    "an engine that answers under stale weights": (
        {"scores": with_scores(text={**OFF, "to_others": {"stale": (0.0, 0.0)}})},
        {"logprobs, text": "engine 1: median 1.5e-01, worst 4.0e-01: stale weights"},
    ),
    "an engine that swaps pictures": (
        {"scores": with_scores(two_pictures={**OFF, "to_others": {"stale": (0.4,) * 2, "swapped": (1e-6,) * 2}})},
        {"logprobs, two pictures": "swapped pictures"},
    ),
    "an engine that drops pixels": (
        {"scores": with_scores(one_picture={**OFF, "to_others": {"swapped": (0.4,) * 2, "blank": (1e-3,) * 2}})},
        {"logprobs, one picture": "dropped pixels"},
    ),
    "an engine with shifted positions": (
        {"scores": with_scores(one_picture=OFF)},
        {"logprobs, one picture": "shifted positions of a picture's tokens"},
    ),
    "an engine with another attention": (
        {"scores": with_scores(text=OFF, one_picture=OFF)},
        {"logprobs, text": "positions or attention of plain text", "logprobs, one picture": "positions or attention"},
    ),
    "logprobs that are no numbers": (
        {"scores": with_scores(one_picture={"difference": (float("nan"),) * 2})},
        {"logprobs, one picture": "shifted positions"},
    ),
    "an engine at work in the learner's turn": ({"is_idle_in_turn": False}, {"turns": "engines were asked"}),
    "a checkpoint that fails": (
        {"failure": ("a training step and a checkpoint", "CheckpointError: disk full")},
        {"a training step and a checkpoint": "CheckpointError: disk full"},
    ),
}  # fmt: skip


def changed(**changes: Any) -> Facts:
    facts = healthy()
    for name, value in changes.items():
        setattr(facts, name, value)
    return facts


def test_nothing_is_wrong_or_left_open_where_everything_is_in_order() -> None:
    assert {row.verdict for row in judge(healthy(), EXPECTED)} == {"ok"}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named_and_no_other(name: str) -> None:
    changes, expected = PLANTED[name]
    found = faults(changed(**changes))
    assert set(found) == set(expected)
    for what, words in expected.items():
        assert words in found[what].found
        assert found[what].remedy


def test_boxes_read_in_another_frame_than_the_family_writes_are_a_fault() -> None:
    found = faults(healthy(), replace(EXPECTED, coord_mode="norm1000"))
    assert (found["box frame"].found, found["box frame"].remedy) == (
        "boxes are read as norm1000", "set model.coord_mode=pixel_resized",
    )  # fmt: skip


def test_a_driver_that_is_too_old_is_a_fault_on_gpus_alone_and_one_that_is_hidden_is_left_open() -> None:
    facts = changed(nodes=[node("a"), node("b", driver_fault="the NVIDIA driver here is too old")], step=None)
    assert faults(facts) == {}
    found = faults(facts, replace(EXPECTED, device="cuda"))
    assert found["GPU driver"].found == "b: the NVIDIA driver here is too old"
    rows = judge(changed(nodes=[node("a", driver=None)], step=None), replace(EXPECTED, device="cuda"))
    assert {row.what: row.verdict for row in rows}["GPU driver"] == "open"


def test_a_step_above_the_plan_is_a_fault() -> None:
    step = healthy().step
    assert step is not None
    facts = changed(step=replace(step, after=(memory(GIB), memory(4 * GIB))))
    assert "4.0 GiB of 24.0 GiB" in faults(facts)["step's memory"].found


@pytest.mark.parametrize("metrics", [{"policy/grad_norm": 0.0}, {"policy/grad_norm": 1.0, "policy/mismatch": 0.01}])
def test_a_step_without_a_gradient_or_with_other_sampling_logprobs_is_a_fault(metrics: dict[str, float]) -> None:
    step = healthy().step
    assert step is not None
    assert set(faults(changed(step=replace(step, metrics=metrics)))) == {"training step"}


def test_a_model_that_hardly_reads_pictures_leaves_the_comparison_open() -> None:
    dull = {"stale": (0.3,) * 2, "swapped": (1e-6,) * 2, "blank": (1e-6,) * 2}
    facts = changed(scores=[score("one picture", 0, effects=dull), score("text", 0)])
    rows = {row.what: row for row in judge(facts, EXPECTED)}
    assert rows["logprobs, one picture"].verdict == "open"
    assert "dropped pixels, swapped pictures would not show" in rows["logprobs, one picture"].found
    assert rows["logprobs, text"].verdict == "ok"


def test_weights_that_no_step_moves_prove_nothing() -> None:
    rows = {row.what: row for row in judge(changed(weights=[weights(0), weights(1, num_moved=0)]), EXPECTED)}
    assert rows["weights after a step"].verdict == "open"


def test_names_that_a_gpu_engine_cannot_find_are_a_fault_and_packed_ones_on_cpu_are_told() -> None:
    facts = changed(weights=[weights(0, unread={0: (NAMES[1],), 1: ()}), weights(1)], step=None)
    rows = {row.what: row for row in judge(facts, EXPECTED)}
    assert "(1 that are sent are kept packed by CPU kernels)" in rows["first weights"].found
    assert set(faults(facts, replace(EXPECTED, device="cuda"))) == {"first weights"}


def test_a_slow_node_is_told_from_the_noise_of_a_busy_machine() -> None:
    healthy_links = dict.fromkeys(range(16), 1.0)
    assert outliers({**healthy_links, 3: 2.9}) == []
    assert outliers({**healthy_links, 3: 4.0, 9: 5.0}) == [3, 9]
    assert outliers({0: 7.0}) == []
