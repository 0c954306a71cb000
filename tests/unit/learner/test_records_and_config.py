import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from tiny_learner import make_group

from learner.config import (
    SUPPORTED_FAMILIES,
    AlgorithmConfig,
    CorrectionConfig,
    DeepSpeedConfig,
    FsdpConfig,
    LearnerConfig,
    OptimizerConfig,
    learning_rate_at,
)
from learner.errors import LearnerError, NonFiniteLossError
from learner.families.registry import FAMILIES
from learner.records import ScoredGroup, ScoredSequence, StepReport
from orchestration.cli import compose
from orchestration.settings.strict import build

CONF = Path(__file__).parents[3] / "conf"


def make_sequence(**changes):
    fields = {
        "completion_token_ids": [7, 8],
        "behaviour_logprobs": [-0.1, -0.2],
        "reward": 1.0,
        "truncated": False,
    }
    return ScoredSequence(**{**fields, **changes})


def learner(**changes):
    return LearnerConfig(optimizer=OptimizerConfig(learning_rate=1.0), **changes)


def test_the_supported_families_are_those_that_have_a_file():
    assert set(SUPPORTED_FAMILIES) == FAMILIES.keys()


def test_records_survive_pickling_with_read_only_arrays():
    group = make_group("pickled")

    copy = pickle.loads(pickle.dumps(group))

    np.testing.assert_array_equal(copy.prompt_token_ids, group.prompt_token_ids)
    assert copy.images == group.images
    assert copy.sequences[0].behaviour_logprobs.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        group.prompt_token_ids[0] = 1
    report = StepReport(step=0, weight_version=1, metrics={"policy/loss": 0.1}, seconds={"plan": 0.2})
    assert pickle.loads(pickle.dumps(report)) == report


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(NonFiniteLossError(3, ("a", "b"), "loss nan")))

    assert (error.step, error.group_ids) == (3, ("a", "b"))
    assert "step 3: loss nan in groups a, b" in str(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"behaviour_logprobs": [-0.1]}, r"one length \[T\], T >= 1; got \(2,\) and \(1,\)"),
        ({"completion_token_ids": [], "behaviour_logprobs": []}, r"got \(0,\) and \(0,\)"),
        ({"completion_token_ids": [[7, 8]], "behaviour_logprobs": [[0.1, 0.2]]}, r"got \(1, 2\) and \(1, 2\)"),
        ({"reward": float("nan")}, "reward is nan; give a finite number, or masked=True"),
        ({"parts": (0.5, float("inf"))}, r"parts is \(0\.5, inf\); give finite numbers, or none and masked=True"),
    ],
)
def test_a_broken_sequence_is_refused(changes, message):
    with pytest.raises(LearnerError, match=message):
        make_sequence(**changes)


def test_broken_groups_are_refused():
    group = {"group_id": "g", "task": "chart", "images": ()}
    with pytest.raises(LearnerError, match="g holds no sequence"):
        ScoredGroup(**group, prompt_token_ids=[1], sequences=())
    with pytest.raises(LearnerError, match=r"g: prompt_token_ids must be \[P\]"):
        ScoredGroup(**group, prompt_token_ids=[], sequences=(make_sequence(),))


@pytest.mark.parametrize(
    ("parts", "sequences", "message"),
    [
        ((("task", 1.0), ("task", 0.5)), [{"parts": (1.0, 0.0)}], "g: parts is .*; name each part once"),
        ((("task", float("nan")),), [{"parts": (1.0,)}], "with a finite weight"),
        ((("task", 1.0),), [{"parts": (1.0,)}, {}], "g: sequence 1 has 0 parts, the group names 1; give a value for"),
        ((), [{"parts": (1.0,)}], "g: sequence 0 has 1 parts, the group names 0"),
        ((("task", 1.0),), [{"parts": (1.0, 2.0), "masked": True}], "sequence 0 has 2 parts"),
    ],
)
def test_parts_of_a_group_and_of_its_sequences_belong_together(parts, sequences, message):
    with pytest.raises(LearnerError, match=message):
        ScoredGroup(
            group_id="g",
            task="chart",
            prompt_token_ids=[1],
            images=(),
            parts=parts,
            sequences=tuple(make_sequence(**changes) for changes in sequences),
        )


def test_a_masked_sequence_needs_no_parts():
    graded, failed = make_sequence(parts=(1.0, 0.0)), make_sequence(masked=True)

    group = ScoredGroup(
        group_id="g",
        task="chart",
        prompt_token_ids=[1],
        images=(),
        parts=(("task", 0.9), ("format", 0.1)),
        sequences=(graded, failed),
    )

    assert [sequence.parts for sequence in pickle.loads(pickle.dumps(group)).sequences] == [(1.0, 0.0), ()]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimizerConfig(learning_rate=1.0, schedule="cosine"), "total_steps is None; schedule cosine"),
        (lambda: learner(attention="flex"), "attention is flex, which trains on GPUs only; use sdpa"),
        (lambda: learner(attention="flash", device="cuda"), "attention is flash, which needs learner.dtype=bfloat16"),
        (lambda: learner(fsdp=FsdpConfig(cpu_offload=True)), r"cpu_offload needs learner\.device=cuda"),
        (lambda: learner(abort_grad_norm=0.5), r"abort_grad_norm is 0\.5; set it well above max_grad_norm=1\.0"),
        (lambda: DeepSpeedConfig(zero_stage=2, offload_params=True), "offload_params needs zero_stage 3"),
        (
            lambda: AlgorithmConfig(correction=CorrectionConfig(level="token")),
            r"correction\.level is token, but with algorithm\.old_logprobs=behaviour",
        ),
    ],
)
def test_settings_that_do_not_fit_one_another_are_named(make, message):
    with pytest.raises(LearnerError, match=message):
        make()


def test_yaml_files_of_learners_hold_exactly_the_fields():
    learner_fields = {f.name for f in dataclasses.fields(LearnerConfig)} - {"model_path", "family", "algorithm"}
    for path in (CONF / "learner").glob("[!_]*.yaml"):
        values = compose([f"learner={path.stem}"])["learner"]
        other_backend = {"fsdp", "deepspeed"} - {values["backend"]}
        assert values.keys() == learner_fields - other_backend, path
        assert values["optimizer"].keys() == {f.name for f in dataclasses.fields(OptimizerConfig)}, path
        build(LearnerConfig, values, "learner")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # Two steps of warm-up to 1, then: stay; fall by 1/4 a step; (1 + cos(pi k / 4)) / 2.
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447, 0.0]),
    ],
)
def test_learning_rates_of_each_schedule(schedule, expected):
    config = OptimizerConfig(learning_rate=1.0, schedule=schedule, warmup_steps=2, total_steps=6)

    assert [learning_rate_at(step, config) for step in range(7)] == pytest.approx(expected, abs=1e-6)
