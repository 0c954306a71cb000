"""Host memory of each machine (processes, what GPUs have offloaded, what is in flight), and bytes of checkpoints.

Source of the overheads of a checkpoint: files written by torch 2.13 and DeepSpeed 0.19.8 of models whose tensors are
known.
"""

import json
from pathlib import Path

from orchestration.cluster.layout import Layout, PlacedActor
from orchestration.cluster.local_ray import store_need
from orchestration.models.shapes import ModelShape
from orchestration.models.tensors import count_elements, trained_tensors
from orchestration.plan.activations import FLOAT32, element_bytes
from orchestration.plan.engine_memory import engine_memory, kept_items
from orchestration.plan.learner_memory import learner_memory, learner_parts, step_pictures
from orchestration.plan.records import MemoryItem, MemoryUse, make_item
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.model import ModelConfig

MIB = 2**20
ENGINE_FRONT_BYTES = 1_000 * MIB
"""Process of an engine's actor: Ray, vLLM and the demo's processor. Measured on a CPU."""
VOCABULARY_BYTES = 4_700
"""Added to it per token of the vocabulary: 1.65 GiB were measured with Qwen2.5-VL's 151,936."""
ENGINE_CORE_BYTES = {"cpu": 1_000 * MIB, "cuda": 3_000 * MIB}
"""Process of an engine worker without cache and weights; with CUDA's libraries an assumption."""
LEARNER_BYTES = {"cpu": 700 * MIB, "cuda": 2_500 * MIB}
"""Process of a learner rank without tensors; with CUDA's libraries an assumption."""
REWARD_BYTES = 300 * MIB
"""Process of a reward actor with its tokenizer."""
DRIVER_BYTES = 500 * MIB
"""The driver on the first machine."""
PROCESS_ITEMS = ("engines: front ends", "engines: workers", "learner: processes", "rewards: processes", "driver")
"""Names of the items of these assumptions."""
DEFAULT_IMAGE_BYTES = 300_000
"""Encoded images of a prompt, if there is no dataset."""
STORED_TENSOR_BYTES = 1_725
"""A tensor's own archive inside a file of torch.distributed.checkpoint, beside its values."""
INDEX_ENTRY_BYTES = 382
"""Its entry in `.metadata`."""
RANDOM_STATE_BYTES = 13_389
"""random_<rank>.pt without a GPU; with one it is a few kilobytes more."""
SCRIPTS_BYTES = 41_070
"""Scripts that DeepSpeed copies into every checkpoint."""
EXPORT_HEADER_BYTES = 110
"""A tensor's entry in the header of a safetensors file."""


def host_memory(
    config: ExperimentConfig, shape: ModelShape, layout: Layout, *, image_bytes: float = DEFAULT_IMAGE_BYTES
) -> tuple[MemoryUse, ...]:
    """Count the host memory of each machine of a layout, in order; `image_bytes` are the encoded images of a prompt."""
    uses = []
    for index, machine in enumerate(layout.machines):
        actors = [actor for actor in layout.actors if actor.machine == index]
        items = [
            *_engines(config, shape, [actor for actor in actors if actor.role == "engine"]),
            *_learners(config, shape, [actor for actor in actors if actor.role == "learner"]),
            *_rewards(config, shape, [actor for actor in actors if actor.role == "reward"]),
        ]
        if index == 0:
            items.append(make_item("driver", DRIVER_BYTES, "assumed"))
        items.append(_store(config, layout, image_bytes))
        place = f"host memory of {machine.name}"
        uses.append(MemoryUse(place=place, items=tuple(items), limit_bytes=machine.memory_bytes))
    return tuple(uses)


def process_bytes(use: MemoryUse) -> int:
    """Return the bytes of a machine that are assumed per process, not counted from the model."""
    return sum(item.bytes for item in use.items if item.name in PROCESS_ITEMS)


def _engines(config: ExperimentConfig, shape: ModelShape, actors: list[PlacedActor]) -> list[MemoryItem]:
    if not actors:
        return []
    engine = config.rollout.engine
    cores, core = len(actors) * engine.tensor_parallel_size, ENGINE_CORE_BYTES[engine.device]
    front = ENGINE_FRONT_BYTES + VOCABULARY_BYTES * shape.text.vocab_size
    found = [
        make_item("engines: front ends", len(actors) * front, f"{len(actors)} x {front:,} B, the tokenizer included"),
        make_item("engines: workers", cores * core, f"{cores} x {core:,} B, besides what they hold on GPUs"),
    ]
    is_cpu = engine.device == "cpu"
    for item in engine_memory(config, shape, None).use.items if is_cpu else kept_items(config, shape):
        found.append(make_item(f"engines: {item.name}", cores * item.bytes, f"{cores} x ({item.formula})"))
    return found


def _learners(config: ExperimentConfig, shape: ModelShape, actors: list[PlacedActor]) -> list[MemoryItem]:
    count = len(actors)
    if not count:
        return []
    learner = config.learner
    process = LEARNER_BYTES[learner.device]
    text = f"{count} shares: pages of training.staging_dir, or its memory where that is a memory file system"
    found = [
        make_item("learner: processes", count * process, f"{count} x {process:,} B"),
        make_item("learner: staged checkpoint", count * share_bytes(config, shape), text),
        *(
            make_item(f"learner: {item.name}", item.bytes, f"rank 0: {item.formula}")
            for item in kept_items(config, shape)
        ),
    ]
    if learner.device == "cpu":
        inside = learner_memory(config, shape, None).items
    else:
        parts = learner_parts(config, shape)
        inside = (*parts.host_kept, *parts.host_phases, step_pictures(config, shape))
        if config.cluster.layout == "colocated":
            parked = sum(item.bytes for item in parts.kept)
            inside += (make_item("state offloaded during rollout", parked, "what the GPU keeps between steps"),)
    return [
        *found,
        *(make_item(f"learner: {item.name}", count * item.bytes, f"{count} x ({item.formula})") for item in inside),
    ]


def _rewards(config: ExperimentConfig, shape: ModelShape, actors: list[PlacedActor]) -> list[MemoryItem]:
    if not actors:
        return []
    table = 2 * shape.text.vocab_size * shape.text.width
    return [
        make_item("rewards: processes", len(actors) * REWARD_BYTES, f"{len(actors)} x {REWARD_BYTES:,} B"),
        make_item("rewards: embedding table", table, "2 B x V x D, shared by all actors of the machine"),
    ]


def _store(config: ExperimentConfig, layout: Layout, image_bytes: float) -> MemoryItem:
    """Groups are stored on their engine's machine until a step has used them; a local Ray's store has a fixed size."""
    if config.cluster.address is None:
        size = config.cluster.object_store_bytes
        return make_item("object store", size, f"cluster.object_store_bytes={size:,}")
    need, machines = store_need(config, image_bytes), len(layout.machines)
    text = f"{need.num_groups} groups x {need.group_bytes:,} B / {machines} machines"
    return make_item("object store", need.total_bytes / machines, text)


def checkpoint_bytes(config: ExperimentConfig, shape: ModelShape) -> int:
    """Return the bytes of one checkpoint, all ranks together.

    Float32 weights and AdamW's two averages are 12 bytes a trained parameter; FSDP adds each fixed one in the type of
    forward and backward (with adapters none), DeepSpeed what its own files repeat.
    """
    learner = config.learner
    split = trained_tensors(shape, learner.freeze, learner.lora)
    trained, fixed, size = count_elements(split.trained), count_elements(split.fixed), element_bytes(learner)
    states = 12 * trained + RANDOM_STATE_BYTES * learner.num_ranks
    if learner.backend == "deepspeed":
        # Stages 1 and 2 write the copy of forward and backward once more; stage 3 of it only what is fixed.
        copy = fixed if learner.deepspeed.zero_stage == 3 else trained + fixed
        return states + size * copy + SCRIPTS_BYTES
    stored = () if learner.lora else split.fixed
    # Weights and averages are cut into a piece a rank; the count of steps of each tensor is stored once.
    pieces = (3 * len(split.trained) + len(stored)) * learner.num_ranks + len(split.trained)
    return states + size * count_elements(stored) + pieces * (STORED_TENSOR_BYTES + INDEX_ENTRY_BYTES)


def share_bytes(config: ExperimentConfig, shape: ModelShape) -> int:
    """Return the bytes that one rank stages on local disk before they are copied to the checkpoint directory."""
    return -(-checkpoint_bytes(config, shape) // config.learner.num_ranks)


def export_bytes(config: ExperimentConfig, shape: ModelShape) -> int:
    """Return the bytes of the weight files of an exported folder; tokenizer and processor are a few megabytes more.

    An export has the dtype of the model that the run started from: of model.path as its config.json says; published
    weights are bfloat16; the demo's are float32. Adapters are float32.
    """
    learner, size = config.learner, stored_element_bytes(config.model)
    model = sum(size * tensor.numel + EXPORT_HEADER_BYTES for tensor in shape.tensors)
    if learner.lora is None or learner.lora.export == "merged":
        return model
    factors = trained_tensors(shape, learner.freeze, learner.lora).trained
    adapter = sum(FLOAT32 * tensor.numel + EXPORT_HEADER_BYTES for tensor in factors)
    return adapter if learner.lora.export == "adapter" else model + adapter


def stored_element_bytes(model: ModelConfig) -> int:
    """Return the bytes of a weight in the folder that the run starts from."""
    if model.path is not None and (file := Path(model.path) / "config.json").is_file():
        saved = json.loads(file.read_text())
        text = saved.get("text_config", {})
        found = [part[key] for part in (saved, text) for key in ("dtype", "torch_dtype") if part.get(key)]
        return 2 if found and found[0] in ("bfloat16", "float16") else FLOAT32
    return 2 if model.path is not None or model.hf_config is not None else FLOAT32
