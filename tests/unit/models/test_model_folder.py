"""Model folders that are not whole, or not what they should be: one line, the same from `plan` and `train`."""

import copy
import json
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from orchestration.cli import USER_ERRORS, main
from orchestration.demo.tiny_model import chat_template
from orchestration.inputs.machine import build_config
from orchestration.models.chat_template import ChatTemplate
from orchestration.models.model_folder import check_model_folder
from orchestration.models.shapes import read_shape
from orchestration.models.tensors import count_parameters
from orchestration.plan.command import print_plan
from orchestration.plan.plan import plan_run
from orchestration.settings.composition import compose
from orchestration.settings.experiment import build_settings
from rollout.conversation import PromptSpec
from tests.tiny_models import make_tiny_model, tiny
from tests.unit.model_folders import change_json, tensors_of, write_json, write_model_folder, write_safetensors

Break = Callable[[Path], object]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1300000000\n"
TEMPLATE = chat_template(tiny("qwen2_5_vl"))


@pytest.fixture(params=["qwen2_5_vl", "internvl"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model_folder(tmp_path / "model")


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


@cache
def composed(family: str) -> dict[str, Any]:
    return compose([f"model={family}"])


def settings_of(folder: Path, family: str = "qwen2_5_vl", *, think_prefilled: bool = False) -> dict[str, Any]:
    """Settings of a run beside the folder, composed once a family."""
    values = copy.deepcopy(composed(family))
    values["model"]["path"] = str(folder)
    values["reward"]["format"]["think_prefilled"] = think_prefilled
    return values | {"run_dir": str(folder.parent / "run"), "cache_dir": str(folder.parent / "cache")}


def refusal(values: dict[str, Any]) -> str:
    """The one line in which `plan` refuses these settings; `train` must refuse them in the same words."""
    with pytest.raises(USER_ERRORS) as planned:
        print_plan(build_settings(values), as_json=False)
    with pytest.raises(USER_ERRORS) as trained:
        build_config(values)
    said = str(planned.value)
    assert str(trained.value) == said
    assert "\n" not in said
    return said


def shards(folder: Path, *, drop: str = "") -> None:
    """Put the weights into two files with an index."""
    tensors = tensors_of(config_of(folder))
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors").unlink()
    if drop:
        (folder / drop).unlink()


def exchange(one: Path, other: Path) -> None:
    """Swap the names of two files."""
    kept = one.read_bytes()
    other.rename(one)
    other.write_bytes(kept)


def cut(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])


def lengthen(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"x")


def reweigh(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tensors = tensors_of(config_of(folder))
    change(tensors)
    write_safetensors(folder / "model.safetensors", tensors)


def only(folder: Path, **files: str) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def instead_of_weights(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)


def in_cache(folder: Path) -> None:
    inside = folder / "snapshots" / "0a1b"
    held = list(folder.iterdir())
    inside.mkdir(parents=True)
    for path in held:
        path.rename(inside / path.name)


def quantise(tensors: dict[str, Any], *names: str) -> None:
    tensors.update({f"model.layers.0.mlp.up_proj.{name}": ("I32", (4, 4), None) for name in names})


NAME = "model.layers.0.mlp.up_proj.weight"

BROKEN: dict[str, tuple[Break, str]] = {
    "fp8": (lambda f: change_json(f / "config.json", quantization_config={"quant_method": "fp8"}),
            "quantised (quantization_config in config.json: fp8)"),
    "compressed in text_config": (
        lambda f: change_json(f / "config.json", text_config={
            **config_of(f)["text_config"], "quantization_config": {"quant_method": "compressed-tensors"}}),
        "quantised (quantization_config in config.json, text_config: compressed-tensors)"),
    "bitsandbytes": (
        lambda f: change_json(f / "config.json", quantization_config={"quant_method": "bitsandbytes"}), "bitsandbytes"),
    "files that changed names": (
        lambda f: (shards(f), exchange(f / "model-00001-of-00002.safetensors", f / "model-00002-of-00002.safetensors")),
        "is in model-00001-of-00002.safetensors, and it is in model-00002-of-00002.safetensors"),
    "limits that allow no image": (
        lambda f: change_json(f / "preprocessor_config.json", min_pixels=3136, max_pixels=100),
        "says min_pixels=3136 and max_pixels=100, so no image is allowed"),
    "gptq file alone": (lambda f: write_json(f / "quantize_config.json", {"bits": 4}), "quantize_config.json"),
    "awq without its config": (lambda f: reweigh(f, lambda t: quantise(t, "qweight", "scales", "qzeros")),
                               "quantised (model.safetensors: model.layers.0.mlp.up_proj.qweight)"),
    "fp8 scales without their config": (lambda f: reweigh(f, lambda t: quantise(t, "weight_scale")), "weight_scale"),
    "fp8 type without its config": (
        lambda f: reweigh(f, lambda t: t.update({NAME: ("F8_E4M3", t[NAME][1], None)})), "weight of type F8_E4M3"),
    "gguf": (lambda f: instead_of_weights(f, "model-q4.gguf"), "holds GGUF weights, which are quantised"),
    "gguf alone": (lambda f: only(f, model__gguf="GGUF"), "holds GGUF weights"),
    "bin weights": (lambda f: instead_of_weights(f, "pytorch_model.bin"), "as pytorch_model.bin, which is not read"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights (model.safetensors or"),
    "shards without index": (lambda f: (shards(f), (f / "model.safetensors.index.json").unlink()), "which says what"),
    "missing shard": (lambda f: shards(f, drop="model-00001-of-00002.safetensors"),
                      "lacks model-00001-of-00002.safetensors, of 2 files"),
    "broken index": (lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {'), "is not JSON"),
    "index without a map": (lambda f: write_json(f / "model.safetensors.index.json", {"total": 1}), "no weight_map"),
    "cut short": (lambda f: cut(f, 300_000), "is cut short: its header says"),
    "cut in its header": (lambda f: cut(f, 100), "is cut short: its header says at least"),
    "empty weights": (lambda f: cut(f, 0), "model.safetensors is empty; download it again"),
    "longer": (lambda f: lengthen(f), "is longer than it may be"),
    "garbled": (lambda f: (f / "model.safetensors").write_bytes(b"<html></html>" * 99), "is no safetensors file"),
    "garbled header": (lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 99) + b"?" * 99),
                       "its header does not parse"),
    "header of nonsense": (lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 9) + b'{"a": {}}'),
                           "its header does not parse"),
    "weights are a pointer": (lambda f: (f / "model.safetensors").write_text(POINTER), "is a Git LFS pointer"),
    "tokenizer is a pointer": (lambda f: (f / "tokenizer.json").write_text(POINTER), "json is a Git LFS pointer"),
    "config is a pointer": (lambda f: (f / "config.json").write_text(POINTER), "config.json is a Git LFS pointer"),
    "config is broken": (lambda f: (f / "config.json").write_text('{"model_type": '), "config.json is not JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "config.json holds a list, no JSON object"),
    "config is no text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe{}"), "config.json is not UTF-8 text"),
    "generation_config is broken": (lambda f: (f / "generation_config.json").write_text("{,"), "json is not JSON"),
    "config is not there": (lambda f: (f / "config.json").unlink(), "holds no config.json; point it at"),
    "a size is missing": (lambda f: change_json(f / "config.json", text_config={"hidden_size": 96}),
                          "config.json.text_config.vocab_size is missing"),
    "another size": (lambda f: change_json(f / "config.json", text_config={
        **config_of(f)["text_config"], "intermediate_size": 320}), "and config.json asks for [320, 96]"),
    "tensors missing": (lambda f: reweigh(f, lambda t: t.pop(NAME)), "lack 1 of 81 tensors that config.json asks for"),
    "no output head": (lambda f: reweigh(f, lambda t: t.pop("lm_head.weight")), "one is lm_head.weight"),
    "no template": (lambda f: (f / "chat_template.jinja").unlink(), "has no chat template; copy chat_template.jinja"),
    "template does not parse": (lambda f: (f / "chat_template.jinja").write_text("{% for m in x %}"), "does not parse"),
    "template raises": (lambda f: (f / "chat_template.jinja").write_text("{{ raise_exception('text only') }}"),
                        "fails on a question with 1 images (text only)"),
    "template without pictures": (
        lambda f: (f / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content[-1].text }}{% endfor %}"),
        "writes 0 <|image_pad|> for one image"),
    "adapter": (lambda f: only(f, adapter_config__json='{"base_model_name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct"}'),
                "is an adapter of Qwen/Qwen2.5-VL-7B-Instruct, no whole model; to train it further, set model.path"),
    "adapter beside a config": (
        lambda f: ((f / "model.safetensors").unlink(), write_json(f / "adapter_config.json", {})),
        "is an adapter of its base model"),
    "remote code": (lambda f: change_json(f / "config.json", model_type="internvl_chat", auto_map={"AutoModel": "m.M"}),
                    "its name ends in -hf"),
    "auto_map": (lambda f: change_json(f / "config.json", auto_map={"AutoModel": "m.M"}), "brings code of its own"),
    "old image processor": (
        lambda f: change_json(f / "preprocessor_config.json", image_processor_type="Qwen2_5_VLImageProcessor"),
        'write "image_processor_type": "Qwen2VLImageProcessor" into it'),
    "another image processor": (lambda f: change_json(f / "preprocessor_config.json", patch_size=16), "size is 16"),
    "no image processor": (lambda f: (f / "preprocessor_config.json").unlink(), "holds no image processor"),
    "vocabulary and merges": (lambda f: ((f / "tokenizer.json").unlink(), (f / "vocab.json").write_text("{}")),
                              "has no tokenizer.json; write one"),
    "tokenizer is broken": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json is no tokenizer"),
    "no tokenizer_config": (lambda f: (f / "tokenizer_config.json").unlink(), "holds no tokenizer_config.json"),
    "image token outside": (lambda f: change_json(f / "config.json", image_token_id=576), "ids below vocab_size=576"),
    "image token unknown": (lambda f: change_json(f / "config.json", image_token_id=575), "has no token of id 575"),
    "a size of NaN": (lambda f: change_json(f / "config.json", text_config={
        **config_of(f)["text_config"], "rope_theta": float("nan")}),
        "config.json says text_config.rope_theta=nan, which is no finite number; copy the file"),
    "an infinite number in a list": (lambda f: change_json(f / "config.json", scales=[1.0, {"b": float("inf")}]),
                                     "config.json says scales[1].b=inf, which is no finite number"),
    "rotary sections of a wider head": (
        lambda f: change_json(f / "config.json", rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]}),
        "says rope_scaling.mrope_section=[16, 24, 24], and it must be three whole numbers whose sum is half of a "
        "head's width of 32; copy the file"),
    "two rotary sections": (lambda f: change_json(f / "config.json", text_config={
        **config_of(f)["text_config"], "rope_parameters": {"mrope_section": [8, 8]}}),
        "says text_config.rope_parameters.mrope_section=[8, 8]"),
    "end token outside": (lambda f: change_json(f / "config.json", eos_token_id=[1, 576]),
                          "says eos_token_id=576, and the model has ids below vocab_size=576"),
    "end token of generation outside": (lambda f: write_json(f / "generation_config.json", {"eos_token_id": -1}),
                                        "generation_config.json says eos_token_id=-1, and the model has ids below"),
    "end token of no id": (lambda f: change_json(f / "config.json", eos_token_id="<|im_end|>"),
                           "says eos_token_id=<|im_end|>, and the model has ids below vocab_size=576"),
    "end token unknown": (lambda f: change_json(f / "config.json", text_config={
        **config_of(f)["text_config"], "eos_token_id": 575}),
        "has no token of id 575, which config.json names as text_config.eos_token_id"),
    "another architecture": (lambda f: change_json(f / "config.json", model_type="mine_vl"),
                             "is a mine_vl model, of which no sizes are known: "),
    "no architecture": (lambda f: change_json(f / "config.json", model_type=None), "names no model_type"),
    "cache of the hub": (in_cache, "point it at the model: model.path="),
    "run folder": (lambda f: write_json(f / "config.json", {"training": {}, "rollout": {}}), "is a run folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_in_one_line_by_plan_and_train_alike(
    name: str, folder: Path, tmp_path: Path
) -> None:
    damage, words = BROKEN[name]
    damage(folder)

    said = refusal(settings_of(folder))

    assert words in said
    assert "model.path" in said
    assert str(folder) in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/not/there", "model.path=/not/there does not exist; point it at"),
        (__file__, "is a file; point it at a Hugging Face folder"),
    ],
)
def test_a_path_that_is_no_folder_is_refused_with_what_it_may_be(path: str, words: str, tmp_path: Path) -> None:
    values = settings_of(tmp_path / "model")
    values["model"]["path"] = path

    assert words in refusal(values)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_downloads_nothing_and_says_how_a_name_of_the_hub_becomes_a_folder(tmp_path: Path) -> None:
    values = settings_of(tmp_path / "model")
    values["model"]["path"] = "Qwen/Qwen2.5-VL-3B-Instruct"

    with pytest.raises(USER_ERRORS, match=r"hf download Qwen/Qwen2\.5-VL-3B-Instruct --local-dir DIR"):
        print_plan(build_settings(values), as_json=False)


def test_the_commands_leave_with_2_and_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(folder, 300_000)

    for verb in ("plan", "train", "submit", "evaluate"):
        with pytest.raises(SystemExit) as left:
            main([verb, "model=qwen2_5_vl", f"model.path={folder}", f"run_dir={tmp_path / 'run'}"])

        [line] = capsys.readouterr().err.splitlines()
        assert left.value.code == 2
        assert line.startswith(f"mixed-r1 {verb}: model.path: {folder}/model.safetensors is cut short")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("missing", ["start_image_token", "end_image_token", "context_image_token", "video_token"])
def test_tokenizer_files_of_internvls_first_conversions_are_refused_with_what_to_add(
    missing: str, tmp_path: Path
) -> None:
    folder = write_model_folder(tmp_path / "model", "internvl")
    change_json(folder / "tokenizer_config.json", **{missing: None})

    said = refusal(settings_of(folder, "internvl"))

    assert f"does not name {missing}" in said
    assert f'add "{missing}": "' in said


def test_whole_folders_are_taken_whatever_their_layout(family: str, tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", family)
    whole = check_model_folder(folder)

    shards(folder)

    assert check_model_folder(folder) == whole
    assert build_config(settings_of(folder, family)).model.folder == folder


def test_the_folder_that_transformers_itself_writes_is_whole(family: str, tmp_path: Path) -> None:
    make_tiny_model(tmp_path, family, corpus=["red circle"] * 9)

    assert check_model_folder(tmp_path).family == family


def test_a_model_that_only_a_class_of_the_users_knows_is_planned_by_the_sizes_that_the_settings_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_model_folder(tmp_path / "model")
    sizes = config_of(folder)
    change_json(folder / "config.json", model_type="mine_vl", hidden_size=None, vision_config=None)
    values = settings_of(folder)
    assert "is a mine_vl model, of which no sizes are known: " in refusal(values)
    assert "a class of your own, model.family=FILE.py:NAME (learner/README.md)" in refusal(values)

    (tmp_path / "my_family.py").write_text("class Mine: ...\n")
    values["model"]["family"] = f"{tmp_path}/my_family.py:Mine"
    assert "and model.hf_config is null; state there the sizes of the nearest model of a known family" in refusal(
        values
    )

    values["model"]["hf_config"] = sizes
    config = build_config(values)
    assert config.model.own_family == values["model"]["family"]
    assert check_model_folder(folder, model=config.model) == read_shape(sizes)
    print_plan(config, as_json=False)
    assert "Mine, planned as Qwen2.5-VL (model)" in capsys.readouterr().out

    (folder / "preprocessor_config.json").unlink()
    assert "holds no image processor" in refusal(values)


def test_a_class_of_the_users_for_a_known_architecture_leaves_all_checks_as_they_are(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    (tmp_path / "my_family.py").write_text("class Mine: ...\n")
    values = settings_of(folder)
    values["model"]["family"] = f"{tmp_path}/my_family.py:Mine"
    assert check_model_folder(folder, model=build_config(values).model) == check_model_folder(folder)

    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(values)
    write_safetensors(folder / "model.safetensors", {"other.weight": ("BF16", (2,), None)})
    assert "the weight files lack" in refusal(values)


@pytest.mark.parametrize("says", [None, True, False])
def test_the_weights_say_whether_the_output_head_is_the_embedding_table(
    says: bool | None, family: str, tmp_path: Path
) -> None:
    folder = write_model_folder(tmp_path / "model", family)
    own = check_model_folder(folder)
    change_json(folder / "config.json", tie_word_embeddings=says)

    plan = plan_run(build_config(settings_of(folder, family)))

    assert check_model_folder(folder) == own
    assert not own.text.is_tied
    assert plan.model.parameters == count_parameters(own)


def test_an_internvl_folder_without_a_word_about_tying_fits_a_recipe_that_says_untied(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", "internvl")
    stated = config_of(folder)
    change_json(folder / "config.json", tie_word_embeddings=None)
    values = settings_of(folder, "internvl")
    values["model"]["hf_config"] = stated

    assert build_config(values).model.folder == folder


def test_a_head_that_copies_the_table_leaves_the_model_tied(folder: Path) -> None:
    tensors = tensors_of(config_of(folder))
    change_json(folder / "config.json", tie_word_embeddings=True)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_safetensors(folder / "model.safetensors", tensors)

    assert check_model_folder(folder).text.is_tied


@pytest.mark.parametrize(
    "place", ["chat_template.json", "processor_config.json", "tokenizer_config.json", "additional_chat_templates"]
)
def test_a_template_is_found_wherever_the_run_finds_it(place: str, folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    if place == "additional_chat_templates":
        (folder / place).mkdir()
        (folder / place / "default.jinja").write_text(TEMPLATE)
    elif place == "tokenizer_config.json":
        change_json(folder / place, chat_template=[{"name": "default", "template": TEMPLATE}])
    else:
        write_json(folder / place, {"chat_template": TEMPLATE})

    check_model_folder(folder)


def test_templates_may_use_what_transformers_gives_them(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{{ strftime_now('%Y')[:2] }}{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{% generation %}{{ {'<': 1} | tojson }}{% endgeneration %}{% endfor %}"
    )

    assert ChatTemplate(folder).prompt("?", num_images=0, spec=PromptSpec()) == '20{"<": 1}'


THINKING = TEMPLATE.replace("assistant\n", "assistant\n<think>\n")
CLOSED = TEMPLATE.replace("assistant\n", "assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    ("template", "prefilled", "words"),
    [
        (THINKING, False, "reward.format.think_prefilled is false, but the chat template of "),
        (TEMPLATE, True, "reward.format.think_prefilled is true, but the chat template of "),
        (CLOSED, True, "reward.format.think_prefilled is true"),
    ],
)
def test_a_template_and_the_reward_must_agree_who_opens_the_think_block(
    template: str, prefilled: bool, words: str, folder: Path
) -> None:
    (folder / "chat_template.jinja").write_text(template)

    said = refusal(settings_of(folder, think_prefilled=prefilled))

    assert said.startswith(words)
    assert f"set reward.format.think_prefilled={str(not prefilled).lower()}" in said


@pytest.mark.parametrize(("template", "prefilled"), [(THINKING, True), (TEMPLATE, False), (CLOSED, False)])
def test_a_template_and_a_reward_that_agree_are_taken(template: str, prefilled: bool, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(template)

    build_config(settings_of(folder, think_prefilled=prefilled))


def test_a_think_block_that_a_system_prompt_speaks_of_is_not_opened(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("Reason in <think> tags." + TEMPLATE)

    assert not ChatTemplate(folder).opens_thinking()


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F64"},
        {"data_offsets": [0, -1]},
        {"data_offsets": [-5, 3]},
        {"data_offsets": [3, 1]},
    ],
)
def test_a_tensor_whose_bytes_do_not_fit_its_shape_is_refused(folder: Path, entry: dict[str, Any]) -> None:
    file = folder / "model.safetensors"
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header[next(name for name in header if name.endswith("embed_tokens.weight"))] |= entry
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    assert "its header does not parse; download it again" in refusal(settings_of(folder))


def test_two_tensors_that_share_bytes_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    names = [name for name in header if name.endswith("input_layernorm.weight")]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    assert "its header does not parse; download it again" in refusal(settings_of(folder))
