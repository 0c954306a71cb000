"""Adapters: what is trained, what engines get, what is saved, and from which ones training goes on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from learner_scenarios import load, save, start_trainer, train, weights_of
from plain_model import load_plain, whole_policy
from safetensors.torch import load_file, save_file
from tiny_learner import make_group
from torch.distributed.checkpoint import FileSystemReader

from learner.adapter import CONFIG_FILE, WEIGHTS_FILE, check_settings, match_factors, stored_name
from learner.backends import fsdp
from learner.config import LoraConfig
from learner.errors import LearnerError
from learner.policy.trainable import add_adapters, is_adapter

LORA = LoraConfig(rank=4, alpha=12.0, target_modules=("q_proj", "down_proj"))
TOWER = ("vision_tower",)


@pytest.fixture
def start(model_path):
    trainers = []

    def start_one(**changes):
        while trainers:
            trainers.pop().close()
        trainers.append(start_trainer(0, 1, 0, changes.pop("model_path", model_path), **{"lora": LORA, **changes}))
        return trainers[0]

    yield start_one
    trainers.pop().close()


def parameters_of(trainer):
    return {
        name: parameter.full_tensor().detach().clone()
        for name, parameter in trainer.backend.policy.hf_model.named_parameters()
    }


def test_a_policy_with_new_adapters_is_the_model_itself(start, model_path):
    plain = dict(whole_policy(model_path).hf_model.named_parameters())

    travelling = weights_of(start())

    assert len(travelling) == len(plain)
    names = start().backend._names
    for name, parameter in plain.items():
        np.testing.assert_array_equal(travelling[names[name]], parameter.detach().numpy())


def test_only_adapters_move_and_what_travels_is_what_peft_merges(start, model_path):
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    trainer = start()
    before = parameters_of(trainer)
    train(trainer, 0, 1, 0, 2)
    after = parameters_of(trainer)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved
    assert all(is_adapter(name) for name in moved)

    theirs = whole_policy(model_path).hf_model
    config = PeftConfig(r=4, lora_alpha=12.0, target_modules=r".*(q_proj|down_proj)", lora_dropout=0.0)
    inject_adapter_in_model(config, theirs)
    theirs.load_state_dict(after, strict=False)
    for module in theirs.modules():
        if isinstance(module, BaseTunerLayer):
            module.merge()
    merged = {
        n.replace(".base_layer", ""): p.detach().numpy() for n, p in theirs.named_parameters() if not is_adapter(n)
    }
    names = trainer.backend._names
    for name, tensor in weights_of(trainer).items():
        own = next(key for key, value in names.items() if value == name)
        np.testing.assert_allclose(tensor, merged[own], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "changes", [{}, {"lora": None, "freeze": TOWER}, {"lora": None, "freeze": ("*embed_tokens*",)}]
)
def test_only_layers_in_which_something_is_trained_travel_after_a_step(start, changes):
    trainer = start(**changes)
    before, changing = weights_of(trainer), trainer.backend.changing_names()
    train(trainer, 0, 1, 0, 2)
    after = weights_of(trainer)

    assert {name for name in after if not np.array_equal(before[name], after[name])} <= changing < set(after)
    travelling = dict(trainer.backend.full_tensors(changing))
    assert list(travelling) == [name for name in after if name in changing]
    for name, tensor in travelling.items():
        np.testing.assert_array_equal(tensor.float().numpy(), after[name], err_msg=name)
    # An engine merges q, k and v into one tensor, and loads all of it or nothing.
    for name in changing:
        beside = name.replace("q_proj", "k_proj")
        assert beside in changing, beside


@pytest.mark.parametrize("frozen", ["*position_embeddings", "*cls_token"])
def test_what_a_module_holds_by_itself_travels_together(frozen, start, model_paths):
    trainer = start(model_path=model_paths["internvl"], lora=None, freeze=(frozen,))

    embeddings = {name for name in trainer.backend.full_shapes() if name.endswith(("position_embeddings", "cls_token"))}
    assert len(embeddings) == 2
    assert embeddings <= trainer.backend.changing_names()


def test_the_reference_is_the_policy_without_its_adapters(start):
    trainer = start(algorithm={"kl_coef": 0.1}, optimizer={"learning_rate": 1e-2})

    first, second = train(trainer, 0, 1, 0, 2)

    assert first["policy/kl_ref"] == pytest.approx(0.0, abs=1e-6)
    assert second["policy/kl_ref"] > 1e-6


def test_a_checkpoint_holds_the_adapters_only_and_goes_on_bit_by_bit(start, tmp_path):
    trainer = start()
    train(trainer, 0, 1, 0, 2)
    folder = save(trainer, tmp_path, step=2)
    train(trainer, 0, 1, 2, 3)
    gone_on = weights_of(trainer)

    resumed = start()
    load(resumed, folder)
    train(resumed, 0, 1, 2, 3)

    for name, tensor in weights_of(resumed).items():
        np.testing.assert_array_equal(tensor, gone_on[name], err_msg=name)
    stored = FileSystemReader(folder / "weights").read_metadata().state_dict_metadata
    models = {name for name in stored if name.startswith("model.")}
    assert models
    assert all(is_adapter(name) for name in models)


def test_an_exported_folder_holds_merged_weights_under_the_models_own_names(start, model_path, tmp_path):
    from transformers import AutoModelForImageTextToText

    trainer = start()
    train(trainer, 0, 1, 0, 2)
    trainer.export(tmp_path / "exported")

    loaded, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "exported", output_loading_info=True)

    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    base = whole_policy(model_path).hf_model
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(loaded.get_parameter(name), base.get_parameter(name))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="adapters"),
        pytest.param({"lora": None, "freeze": TOWER}, id="a frozen tower", marks=pytest.mark.slow),
    ],
)
def test_what_is_not_trained_is_held_in_the_type_of_forward_and_backward_and_training_is_the_same_to_the_bit(
    changes, start, monkeypatch
):
    def trained():
        trainer = start(dtype="bfloat16", algorithm={"kl_coef": 0.1}, **changes)
        metrics = train(trainer, 0, 1, 0, 2)
        backend = trainer.backend
        assert {p.dtype for p in backend.policy.parameters() if p.requires_grad} == {torch.float32}
        policies = (backend.policy, backend._reference)
        fixed = [p for policy in policies for p in policy.parameters() if not p.requires_grad]
        return metrics, {p.dtype for p in fixed}, weights_of(trainer)

    metrics, fixed, weights = trained()
    monkeypatch.setattr(fsdp, "_narrow_fixed", lambda policy, dtype: None)
    wide_metrics, wide_fixed, wide_weights = trained()

    assert (fixed, wide_fixed) == ({torch.bfloat16}, {torch.float32})
    assert metrics == wide_metrics
    assert all((weight == wide_weights[name]).all() for name, weight in weights.items())


def test_merged_weights_are_rounded_once_from_a_sum_in_float32(start, tmp_path):
    """The folder is float32: a step that bfloat16 would swallow is in the export."""
    trainer = start(dtype="bfloat16", optimizer={"learning_rate": 1e-5})
    train(trainer, 0, 1, 0, 2)
    held = {name: weight.double() for name, weight in parameters_of(trainer).items()}
    layer = "model.language_model.layers.0.self_attn.q_proj"
    factor_a, factor_b = (held[f"{layer}.lora_{part}.default.weight"] for part in "AB")
    base = held[f"{layer}.base_layer.weight"]
    expected = base + factor_b @ factor_a * (LORA.alpha / LORA.rank)

    trainer.export(tmp_path / "exported")

    exported = load_plain(tmp_path / "exported").get_parameter(f"{layer}.weight").detach()
    moved = (expected - base).abs().max()
    assert 0 < moved < 2**-9 * base.abs().max()
    assert (exported - expected).abs().max() < 1e-2 * moved


def test_frozen_parts_get_no_adapters(model_paths):
    from learner.attention.sdpa import SdpaKernel
    from learner.policy.source import FolderSource
    from learner.policy.trainable import freeze_parameters

    policy = FolderSource(model_paths["internvl"], SdpaKernel(), temperature=1.0).skeleton()
    freeze_parameters(policy, TOWER)

    adapted = add_adapters(policy, LoraConfig(target_modules=("q_proj",)))

    assert adapted == [f"model.language_model.layers.{i}.self_attn.q_proj" for i in range(2)]


@pytest.mark.parametrize("target", ["qproj", "lm_head"])
def test_a_target_that_is_no_trainable_layer_is_refused_with_those_there_are(model_path, target):
    policy = whole_policy(model_path)

    with pytest.raises(LearnerError, match=rf"target_modules names '{target}', which is no trainable .* down_proj, "):
        add_adapters(policy, LoraConfig(target_modules=("q_proj", target)))


@pytest.fixture(scope="module")
def trained(model_path, tmp_path_factory):
    """Folder of an exported adapter and of the merged model, merged weights and logprobs of a run that ended."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = start_trainer(0, 1, 0, model_path, lora=LORA, optimizer={"learning_rate": 1e-2})
    train(trainer, 0, 1, 0, 2)
    trainer.export(folder / "merged")
    trainer.export_adapter(folder / "adapter")
    found = folder, weights_of(trainer), trainer.sequence_logprobs(make_group("probe"))
    trainer.close()
    return found


def started(folder):
    return replace(LORA, start=str(folder))


def test_training_goes_on_from_an_exported_adapter_with_the_weights_and_logprobs_of_the_runs_end(start, trained):
    folder, weights, logprobs = trained

    trainer = start(lora=started(folder / "adapter"), algorithm={"kl_coef": 0.1})

    for name, tensor in weights_of(trainer).items():
        np.testing.assert_array_equal(tensor, weights[name], err_msg=name)
    for own, theirs in zip(trainer.sequence_logprobs(make_group("probe")), logprobs, strict=True):
        np.testing.assert_array_equal(own, theirs)
    [metrics] = train(trainer, 0, 1, 0, 1)
    assert metrics["policy/kl_ref"] > 1e-6  # the reference is the model without the adapter


def test_peft_reads_an_exported_adapter_and_merges_it_to_the_exported_model(trained, model_path):
    from peft import PeftModel

    folder, _, _ = trained
    theirs = PeftModel.from_pretrained(load_plain(model_path), str(folder / "adapter")).merge_and_unload()

    exported = dict(load_plain(folder / "merged").named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(parameter, exported[name], rtol=0, atol=1e-6, msg=name)
    assert not torch.equal(
        load_plain(model_path).get_parameter(name_of_q := "model.language_model.layers.0.self_attn.q_proj.weight"),
        exported[name_of_q],
    )


def test_training_goes_on_from_what_peft_saved_under_older_names_and_by_rslora(start, model_path, tmp_path):
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    torch.manual_seed(0)
    targets = r".*language_model.*(q_proj|down_proj)"
    config = PeftConfig(r=4, lora_alpha=6, target_modules=targets, init_lora_weights=False, use_rslora=True)
    theirs = get_peft_model(load_plain(model_path), config)
    theirs.save_pretrained(str(tmp_path / "saved"))
    tensors = load_file(tmp_path / "saved" / WEIGHTS_FILE)
    older = {
        key.replace("model.language_model.layers", "model.layers").replace(".weight", ".default.weight"): tensor
        for key, tensor in tensors.items()
    }
    assert not older.keys() & tensors.keys()
    save_file(older, tmp_path / "saved" / WEIGHTS_FILE)
    merged = dict(theirs.merge_and_unload().named_parameters())

    # alpha / sqrt(rank) = 6 / 2 there is 12 / 4 here.
    trainer = start(lora=started(tmp_path / "saved"), freeze=("model.visual.*",))

    names = trainer.backend._names
    for name, tensor in weights_of(trainer).items():
        own = next(key for key, value in names.items() if value == name)
        np.testing.assert_allclose(tensor, merged[own].detach().numpy(), rtol=0, atol=1e-6, err_msg=name)


def edited(folder, target, **changes):
    """A copy of an adapter whose adapter_config.json says something else."""
    target.mkdir()
    said = json.loads((folder / CONFIG_FILE).read_text())
    (target / CONFIG_FILE).write_text(json.dumps(said | changes))
    (target / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes())
    return target


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"use_dora": True}, r"says use_dora=true, which adapters here cannot represent; merge the adapter"),
        ({"bias": "all", "modules_to_save": ["lm_head"]}, r'says bias="all", modules_to_save=\["lm_head"\], which'),
        ({"rank_pattern": {"q_proj": 8}}, r'says rank_pattern=\{"q_proj": 8\}, which'),
        ({"init_lora_weights": "pissa"}, r'says init_lora_weights="pissa", which'),
        ({"peft_type": "LOHA"}, r'says peft_type="LOHA", which'),
        ({"something_new": 1}, r"says something_new=1, which"),
        ({"r": 8}, r"has rank 8 and alpha 12, and the run rank 4 and alpha 12; set learner\.lora\.rank=8 learner"),
        ({"use_rslora": True}, r"has rank 4 and alpha 24 by use_rslora, .*learner\.lora\.alpha=24$"),
        ({"r": None}, r"says r=None and lora_alpha=12\.0; copy the file again"),
    ],
)
def test_an_adapter_that_means_something_else_is_refused_with_the_remedy(said, message, trained, tmp_path):
    folder = edited(trained[0] / "adapter", tmp_path / "edited", **said)

    with pytest.raises(LearnerError, match=message):
        check_settings(folder, started(folder))


def test_a_folder_without_an_adapter_is_refused_with_where_one_is(trained, tmp_path):
    for folder, message in (
        (tmp_path / "nowhere", "is no folder; point it at the folder of an adapter"),
        (trained[0], rf"holds no {CONFIG_FILE}; the adapter is in {trained[0] / 'adapter'}"),
        (trained[0] / "merged", "for a whole model, or weights of another run, set model.path to its folder"),
    ):
        with pytest.raises(LearnerError, match=message):
            check_settings(folder, started(folder))


FACTORS = {f"model.layers.0.q_proj.lora_{part}.default.weight": shape for part, shape in (("A", (4, 8)), ("B", (8, 4)))}
STORED = {stored_name(name): shape for name, shape in FACTORS.items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"base_model.model.lm_head.weight": (9, 8)},
            r"1 tensors are no factors of linear layers: base_model\.model\.lm_",
        ),
        (
            {next(iter(STORED)): None},
            r"of the 2 factors the adapter lacks 1 that these settings train: model\.layers\.0\.q_",
        ),
        (
            {"base_model.model.model.layers.1.k_proj.lora_A.weight": (4, 8)},
            r"has 1 that they do not: base_model.*k_proj.*layers named k_proj, q_proj: make learner\.lora\.target",
        ),
        (
            {next(iter(STORED)): (4, 9)},
            r"lora_A\.weight has shape \[4, 9\], and the model needs \[4, 8\]; the adapter is",
        ),
    ],
    ids=["no factor", "missing", "too many", "another shape"],
)
def test_tensors_that_do_not_fit_are_named(changes, message, tmp_path):
    stored = {key: shape for key, shape in (STORED | changes).items() if shape is not None}

    with pytest.raises(LearnerError, match=message):
        match_factors(tmp_path, stored, FACTORS, str)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_engines_that_keep_the_model_are_sent_factors_whose_product_is_what_merging_adds(family, start, model_paths):
    folder = model_paths[family]
    freeze = ("vision_tower", "projector")
    trainer = start(lora=replace(LORA, publish="adapter"), model_path=folder, freeze=freeze)
    train(trainer, 0, 1, 0, 1, family=family)
    backend = trainer.backend

    shapes = backend.published_shapes()
    published = dict(backend.published_tensors(frozenset(shapes)))

    assert {name: tuple(tensor.shape) for name, tensor in published.items()} == shapes
    assert list(published) == list(shapes)
    factors = {name for name in published if ".lora_" in name}
    assert backend.missing_names() == backend.changing_names() == factors
    assert len(factors) == 2 * 2 * 2  # two layers with two targets
    assert [name for name, _ in backend.published_tensors(factors)] == [name for name in published if name in factors]
    for name, tensor in backend.full_tensors():
        if (factor := name.replace(".weight", ".lora_A.weight")) in factors:
            product = published[factor.replace("lora_A", "lora_B")] @ published[factor]
            assert product.abs().max() > 1e-4
            torch.testing.assert_close(published[name] + product, tensor, rtol=0, atol=1e-6)
        else:
            assert torch.equal(published[name], tensor), name


def test_merged_weights_are_published_as_before(start):
    backend = start().backend
    assert backend.published_shapes() == backend.full_shapes()
    assert backend.missing_names() == frozenset(backend.full_shapes())
    assert backend.changing_names() < backend.missing_names()
