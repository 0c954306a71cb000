"""Learner ranks whose memory is planned and measured: the same model, settings and groups for both."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from learner.config import AlgorithmConfig, LearnerConfig, OptimizerConfig, runs_padded
from learner.records import ScoredGroup
from orchestration.models.image_tokens import vision_rows
from orchestration.models.shapes import ModelShape, read_saved_shape
from orchestration.plan.activations import StreamLoad, picture_values
from orchestration.plan.learner_memory import rank_parts
from orchestration.plan.records import LearnerParts
from tests.benchmarks.learner_batch import IMAGE_TOKEN, TOKEN_PIXELS, make_group, qwen_config
from tests.benchmarks.live_bytes import peak_live_bytes, storage_bytes
from tests.tiny_models import make_tiny_model, tiny

MICRO_BATCHES = 2
"""In each step: gradients of the first are there when the second runs."""


NUM_BYTES = 256
"""Tokens of the demo's vocabulary before its control tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model, one load and one way to train."""

    family: str = "qwen2_5_vl"
    is_demo: bool = False
    """Whether it is the demo's tiny model of the family, whose sizes replace those below."""
    width: int = 128
    layers: int = 3
    vision_width: int = 64
    vision_layers: int = 3
    vocab_size: int = 512
    prompts: int = 2
    """Groups of one micro-batch."""
    prompt_tokens: int = 80
    image_side: int = 168
    """0 for no image."""
    group_size: int = 4
    completion_tokens: int = 32
    learner: dict[str, Any] = field(default_factory=dict)
    """Settings of LearnerConfig; `kl_coef` is the algorithm's."""

    @property
    def load(self) -> StreamLoad:
        """Of a micro-batch; padded rows hold a prompt each."""
        rows = self.prompts * self.group_size
        return StreamLoad(
            num_prompts=rows if runs_padded(tiny(self.family).hf_config["model_type"]) else self.prompts,
            prompt_tokens=self.prompt_tokens,
            image_tokens=(self.image_side // TOKEN_PIXELS) ** 2,
            num_completions=rows,
            completion_tokens=self.completion_tokens,
        )

    def learner_config(self, folder: Path, num_ranks: int = 1) -> LearnerConfig:
        """Settings of a rank."""
        changes = dict(self.learner)
        return LearnerConfig(
            model_path=str(folder),
            optimizer=OptimizerConfig(learning_rate=1e-5),
            algorithm=AlgorithmConfig(aggregation="token", kl_coef=changes.pop("kl_coef", 0.0)),
            micro_batch_tokens=self.load.num_tokens,
            num_ranks=num_ranks,
            **changes,
        )

    def groups(self, folder: Path, rank: int = 0) -> list[ScoredGroup]:
        """A step's groups of one rank: MICRO_BATCHES micro-batches of the load."""
        return [
            make_group(
                f"g{rank}_{index}",
                lengths=[self.completion_tokens] * self.group_size,
                prompt_tokens=self.prompt_tokens,
                image_side=self.image_side,
                vocab_size=NUM_BYTES if self.is_demo else self.vocab_size,
                image_token=shape_in(folder).image_token_id or IMAGE_TOKEN,
            )
            for index in range(MICRO_BATCHES * self.prompts)
        ]


def demo_case(family: str, **learner: Any) -> Case:
    """Return a case of the demo's tiny model of a family; Gemma 4 enlarges every square to 64 tokens, padded to 70."""
    side = 0 if tiny(family).hf_processor is None else 224 if family == "gemma4" else 112
    return Case(family=family, is_demo=True, image_side=side, prompt_tokens=110, learner=learner)


def write_model(case: Case, folder: Path) -> None:
    """Write a folder with random weights and an image processor."""
    torch.manual_seed(0)
    if case.is_demo:
        make_tiny_model(folder, case.family, corpus=["yes no"])
        return
    if case.family.startswith("internvl"):
        _write_internvl(case, folder)
        return
    from transformers import AutoModelForImageTextToText
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    config = _qwen3_vl_config(case) if case.family == "qwen3_vl" else qwen_config(
        width=case.width,
        layers=case.layers,
        vision_width=case.vision_width,
        vision_layers=case.vision_layers,
        vocab_size=case.vocab_size,
    )  # fmt: skip
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    Qwen2VLImageProcessor(min_pixels=TOKEN_PIXELS**2, max_pixels=(64 * TOKEN_PIXELS) ** 2).save_pretrained(folder)


def _qwen3_vl_config(case: Case) -> Any:
    """Norms on queries and keys, a plain MLP in the tower, features of its first block in the language model's."""
    from transformers import Qwen3VLConfig

    return Qwen3VLConfig(
        text_config={
            "vocab_size": case.vocab_size,
            "hidden_size": case.width,
            "intermediate_size": 3 * case.width,
            "num_hidden_layers": case.layers,
            "num_attention_heads": case.width // 64,
            "num_key_value_heads": max(1, case.width // 128),
            "head_dim": 64,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [12, 10, 10]},
        },
        vision_config={
            "depth": case.vision_layers,
            "hidden_size": case.vision_width,
            "intermediate_size": 3 * case.vision_width,
            "num_heads": case.vision_width // 32,
            "out_hidden_size": case.width,
            "patch_size": TOKEN_PIXELS // 2,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=IMAGE_TOKEN,
        tie_word_embeddings=False,
    )


def _write_internvl(case: Case, folder: Path) -> None:
    """One tile is one picture, so it takes as many tokens as Qwen2.5-VL's patches do."""
    from transformers import GotOcr2ImageProcessor, InternVLConfig, InternVLForConditionalGeneration

    config = InternVLConfig(
        text_config={
            "model_type": "qwen3" if case.family == "internvl3_5" else "qwen2",
            "head_dim": 64,
            "vocab_size": case.vocab_size,
            "hidden_size": case.width,
            "intermediate_size": 3 * case.width,
            "num_hidden_layers": case.layers,
            "num_attention_heads": case.width // 64,
            "num_key_value_heads": max(1, case.width // 128),
            "tie_word_embeddings": False,
        },
        vision_config={
            "hidden_size": case.vision_width,
            "intermediate_size": 3 * case.vision_width,
            "num_hidden_layers": case.vision_layers,
            "num_attention_heads": case.vision_width // 32,
            "attention_bias": True,
            "image_size": case.image_side,
        },
        image_token_id=IMAGE_TOKEN,
        image_seq_length=case.load.image_tokens,
        tie_word_embeddings=False,
    )
    InternVLForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": case.image_side, "width": case.image_side}
    GotOcr2ImageProcessor(size=size, min_patches=1, max_patches=1).save_pretrained(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Bytes of one rank."""

    kept: int
    """Tensors between steps."""
    phases: dict[str, int]
    """What each stretch of a step, or of a transfer, has at its peak beyond that."""
    seconds: float

    @property
    def peak(self) -> int:
        """Both, in the fullest stretch."""
        return self.kept + max(self.phases.values())


def plan(case: Case, folder: Path, num_ranks: int = 1) -> tuple[LearnerParts, int]:
    """Return the plan of a rank, and the pictures that its process holds during a step."""
    shape = shape_in(folder)
    config = case.learner_config(folder, num_ranks)
    rows = vision_rows(shape, MICRO_BATCHES * case.prompts * case.load.image_tokens)
    return rank_parts(config, shape, case.load, transfer=()), int(4 * rows * picture_values(shape))


def fullest(parts: LearnerParts, *, without: str = "") -> int:
    """Return the bytes that the fullest phase adds, one left out."""
    return max(sum(item.bytes for item in items) for phase, items in parts.phases.items() if phase != without)


def shape_in(folder: Path) -> ModelShape:
    """Read a folder's sizes."""
    return read_saved_shape(json.loads((folder / "config.json").read_text()))


@contextmanager
def trainer_of(case: Case, folder: Path, *, rank: int = 0, num_ranks: int = 1, port: int = 0) -> Iterator[Any]:
    """Start a rank that has taken a step, so that optimiser state and buffers are there."""
    from learner.training.trainer import PolicyTrainer

    threads = torch.get_num_threads()
    trainer = PolicyTrainer(
        case.learner_config(folder, num_ranks),
        rank=rank,
        world_size=num_ranks,
        master_address="127.0.0.1",
        master_port=port,
    )
    try:
        trainer.train_step(case.groups(folder, rank), step=0)
        yield trainer
    finally:
        trainer.close()
        torch.set_num_threads(threads)


def measure_fsdp(case: Case, folder: Path, **where: int) -> Measured:
    """Count what is alive in a rank of FSDP2: between steps, and at the peak of a step and of a transfer."""
    started = time.perf_counter()
    with trainer_of(case, folder, **where) as trainer:
        backend = trainer.backend
        tensors = [*backend.policy.parameters()]
        tensors += [*backend._reference.parameters()] if backend._reference is not None else []
        for state in backend._optimizer.state.values():
            tensors += state.values()
        groups = case.groups(folder, where.get("rank", 0))
        phases = {
            "step": peak_live_bytes(lambda: trainer.train_step(groups, step=1)),
            # gloo's threads let go of copies when they please, which only ever adds to a peak.
            "transfer": min(peak_live_bytes(lambda: [None for _ in trainer.backend.full_tensors()]) for _ in range(5)),
        }
        return Measured(kept=storage_bytes(tensors), phases=phases, seconds=time.perf_counter() - started)
