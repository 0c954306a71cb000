"""DeepSpeed ZeRO 1, 2 and 3 against FSDP on one rank."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from deepspeed_scenarios import NUM_STEPS, narrow_life, resume, whole_life
from learner_scenarios import assert_same_weights, check_two_ranks, live_case, run_in_turn, train_steps
from safetensors.torch import load_file, save_file
from tiny_learner import run_ranks

from learner import checkpoint
from learner.backends.deepspeed_checkpoint import LAYOUT_FILE, Layout, load_engine
from learner.config import DeepSpeedConfig
from learner.errors import CheckpointError, LearnerError, NonFiniteLossError
from learner.store import open_store

pytest.importorskip("deepspeed", reason="an extra of its own: mixed-r1[deepspeed]")

STAGES = (1, 2, 3)
CHOSEN_CASES = (
    (1, "frozen tower"),
    (1, "REINFORCE++, KL in the reward"),
    (2, "GSPO, 2 epochs of 2 minibatches"),
    (2, "LoRA, KL in the loss"),
    (3, "recomputation, KL in the loss"),
    (3, "LoRA, KL in the loss"),
    (2, "experts, balance loss, recomputation"),
    (3, "experts, balance loss, recomputation"),
)
"""Stage and case of learner_scenarios; each kind of step once, in the stage where it is most likely to break."""


def settings(stage, *, offload=False, **changes):
    deepspeed = DeepSpeedConfig(zero_stage=stage, offload_optimizer=offload, offload_params=offload and stage == 3)
    return {"backend": "deepspeed", "deepspeed": deepspeed, "micro_batch_tokens": 100, **changes}


# Starting ranks costs more than most of what they do: two of them live all that begins anew, two others all that is
# resumed, and one the rest.


@pytest.fixture(scope="module")
def untied(model_path, tmp_path_factory):
    return write_untied_model(model_path, tmp_path_factory.mktemp("untied") / "model")


@pytest.fixture(scope="module")
def on_two_ranks(model_path, model_paths, untied, tmp_path_factory):
    """Whole lives by stage, the chosen cases, lives in bfloat16 by stage, and a model with a head of its own."""
    folder = tmp_path_factory.mktemp("two")
    calls = {
        **{("whole", stage): (whole_life, model_path, folder / f"zero{stage}", settings(stage)) for stage in STAGES},
        **{
            ("chosen", stage, name): (live_case, model_paths, name, settings(stage, micro_batch_tokens=60))
            for stage, name in CHOSEN_CASES
        },
        **{("narrow", stage): (narrow_life, model_path, settings(stage)) for stage in STAGES},
        "untied": (train_steps, untied, settings(3)),
    }
    return dict(zip(calls, run_in_turn(2, folder, list(calls.values())), strict=True))


@pytest.fixture(scope="module")
def resuming(model_path, on_two_ranks):
    """What goes on from the checkpoints of two ranks."""
    folders = {stage: on_two_ranks["whole", stage][0]["folder"] for stage in STAGES}
    return [(resume, model_path, folder, settings(stage)) for stage, folder in folders.items()]


@pytest.fixture(scope="module")
def resumed_on_two_ranks(resuming, tmp_path_factory):
    return dict(zip(STAGES, run_in_turn(2, tmp_path_factory.mktemp("resumed"), resuming), strict=True))


@pytest.fixture(scope="module")
def on_one_rank(model_path, resuming, tmp_path_factory):
    """Whole lives of FSDP and of the offloading stages, and by stage what goes on from the checkpoints of two ranks."""
    folder = tmp_path_factory.mktemp("one")
    changes = {"fsdp": {}, 2: settings(2, offload=True), 3: settings(3, offload=True)}
    calls = [(whole_life, model_path, folder / str(of), own) for of, own in changes.items()]
    names = [*(("whole", of) for of in changes), *(("resumed", stage) for stage in STAGES)]
    return {name: life for name, [life] in zip(names, run_in_turn(1, folder, calls + resuming), strict=True)}


@pytest.fixture(scope="module")
def fsdp_life(on_one_rank):
    return on_one_rank["whole", "fsdp"]


def write_untied_model(source, target):
    """Copy a model folder, with a head of its own instead of the embedding."""
    shutil.copytree(source, target)
    (target / "config.json").write_text(
        (source / "config.json").read_text().replace('"tie_word_embeddings": true', '"tie_word_embeddings": false')
    )
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def assert_same_life(found, expected):
    # Adam divides by the gradient's own size, which blows rounding up where a gradient is nearly 0.
    for moment in ("trained", "gone_on", "ended"):
        assert_same_weights(found[moment], expected[moment], atol=1e-4)
    assert_same_metrics(found["metrics"], expected["metrics"])
    for ours, theirs in zip(found["logprobs"], expected["logprobs"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def assert_same_metrics(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        for name in theirs.keys() - {"learner/num_forward_tokens"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_one_rank_updates_as_fsdp_does(stage, model_path, tmp_path, fsdp_life):
    [found] = run_ranks(1, train_steps, tmp_path, model_path, settings(stage))

    assert_same_weights(found["weights"], fsdp_life["trained"], atol=1e-4)
    assert_same_metrics(found["metrics"], fsdp_life["metrics"][:NUM_STEPS])


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_update_as_fsdp_on_one_does(stage, on_two_ranks, fsdp_life, differences):
    """Through idle ranks and steps without signal too, and after a step that raised."""
    first, second = on_two_ranks["whole", stage]

    assert [(name, array.shape) for name, array in first["trained"].items()] == first["shapes"] == second["shapes"]
    block = {name: array for name, array in first["trained"].items() if name in first["block"]}
    assert len(block) == 12
    assert_same_weights(first["block"], block, atol=0)
    what = f"2 ranks, ZeRO-{stage} = 1 rank, FSDP2"
    loss, expected = ([metrics["policy/loss"] for metrics in life["metrics"]] for life in (first, fsdp_life))
    differences.check(f"{what}: gradients", "plain", first["gradients"], fsdp_life["gradients"], atol=1e-5)
    differences.check(f"{what}: weights, 2 steps", "plain", first["trained"], fsdp_life["trained"], atol=1e-4)
    differences.check(f"{what}: loss", "plain", loss, expected, atol=1e-4)
    assert_same_life(first, fsdp_life)
    assert_same_weights(second["ended"], first["ended"], atol=0)
    assert second["metrics"] == first["metrics"]
    assert first["metrics"][-1]["policy/grad_norm"] == 0.0


@pytest.mark.parametrize("stage", STAGES)
def test_a_bad_group_or_a_nan_on_one_rank_raises_on_all_and_moves_nothing(stage, on_two_ranks):
    for life in on_two_ranks["whole", stage]:
        unusable, non_finite = life["raised"]
        assert isinstance(unusable, LearnerError)
        assert isinstance(non_finite, NonFiniteLossError)
        assert non_finite.group_ids == ("poisoned",)
        assert life["is_unchanged"]


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_printed_or_left_in_the_working_directory(stage, on_two_ranks):
    for life in on_two_ranks["whole", stage]:
        assert life["printed"] == b""
        assert life["left_behind"] == []


@pytest.mark.parametrize(("stage", "name"), CHOSEN_CASES)
def test_every_kind_of_step_updates_as_fsdp_does(stage, name, on_two_ranks, one_rank, differences):
    what = f"2 ranks, ZeRO-{stage} = 1 rank, FSDP2"
    check_two_ranks(differences, what, name, one_rank(name), on_two_ranks["chosen", stage, name])


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_goes_on_bit_by_bit_on_as_many_ranks(stage, on_two_ranks, resumed_on_two_ranks):
    written, resumed = on_two_ranks["whole", stage], resumed_on_two_ranks[stage]
    folder = written[0]["folder"]

    assert checkpoint.read(open_store(folder.parent), NUM_STEPS).num_ranks == 2
    for before, after in zip(written, resumed, strict=True):
        assert after["version"] == NUM_STEPS + 1
        assert after["drawn"] == before["drawn"]
        assert_same_weights(after["loaded"], before["trained"], atol=0)
        assert_same_weights(after["gone_on"], before["gone_on"], atol=0)


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_goes_on_on_another_number_of_ranks(stage, on_two_ranks, on_one_rank):
    written, resumed = on_two_ranks["whole", stage][0], on_one_rank["resumed", stage]

    assert_same_weights(resumed["loaded"], written["trained"], atol=0)
    assert_same_weights(resumed["gone_on"], written["gone_on"], atol=2e-5)
    step = checkpoint.read(open_store(written["folder"].parent), NUM_STEPS)
    files = {str(path.relative_to(written["folder"])) for path in written["folder"].rglob("*") if path.is_file()}
    assert files == {entry.name for entry in step.files} | {checkpoint.COMPLETE_MARKER}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("before", "after"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_a_checkpoint_loads_in_the_other_precision(before, after, stage, model_path, tmp_path):
    """Float32 values stay as they are; only what forward and backward use is rounded."""
    changes = settings(stage)
    written = run_ranks(
        2, whole_life, tmp_path / "write", model_path, tmp_path / "checkpoints", {**changes, "dtype": before}
    )

    resumed = run_ranks(2, resume, tmp_path / "resume", model_path, written[0]["folder"], {**changes, "dtype": after})

    for rank in resumed:
        assert_same_weights(rank["loaded"], written[0]["trained"], atol=0)
        assert rank["version"] == NUM_STEPS + 1
        # A step in bfloat16 differs from one in float32 by its rounding.
        assert_same_weights(rank["gone_on"], written[0]["gone_on"], atol=5e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zero_stage": 3}, "zero_stage is 2 there and 3 here"),
        ({"trained": ("head",)}, "trained is 2 names there and 1 names here"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(change, message, tmp_path):
    written = Layout(zero_stage=2, dtype="float32", trained=("body", "head"), num_ranks=1)
    (tmp_path / LAYOUT_FILE).write_text(json.dumps(asdict(written)))

    with pytest.raises(CheckpointError, match=message):
        load_engine(None, tmp_path, replace(written, **change), is_writer=True)


def test_a_checkpoint_of_the_other_backend_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"was not written by the DeepSpeed backend; set learner\.backend=fsdp"):
        load_engine(None, tmp_path, Layout(zero_stage=2, dtype="float32", trained=(), num_ranks=1), is_writer=True)


@pytest.mark.parametrize("stage", [2, 3])
def test_offloading_changes_no_update_and_recovers_from_a_nan(stage, on_one_rank):
    assert_same_life(on_one_rank["whole", stage], on_one_rank["whole", "fsdp"])
    assert on_one_rank["whole", stage]["is_unchanged"]


def test_stage_3_gathers_a_head_of_its_own(untied, on_two_ranks):
    """Without tying, nothing else gathers the weight from which logprobs are computed."""
    expected = train_steps(0, 1, 0, untied, {})

    first, _ = on_two_ranks["untied"]

    assert "lm_head.weight" in first["weights"]
    assert_same_weights(first["weights"], expected["weights"], atol=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_bfloat16_computes_narrow_and_trains_float32_weights(stage, on_two_ranks):
    first, second = on_two_ranks["narrow", stage]

    assert [str(dtype) for dtype in first["computed"]] == ["torch.bfloat16"]
    assert all(np.isfinite(metrics["policy/loss"]) for metrics in first["metrics"])
    assert {array.dtype.name for array in first["after"].values()} == {"float32"}
    assert any(not np.array_equal(first["before"][name], first["after"][name]) for name in first["before"])
    assert_same_weights(second["after"], first["after"], atol=0)
    assert [type(error) for error in first["raised"]] == [LearnerError, NonFiniteLossError]
    assert first["is_unchanged"]
    assert all(np.isfinite(array).all() for array in first["after"].values())
