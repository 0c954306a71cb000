"""Where a training step's time and memory go, on FSDP2 and on DeepSpeed ZeRO 1, 2, 3: one rank on a CPU.

    python -m tests.benchmarks.learner_parts [--rounds 3] [--steps 3] [--width 256] [--layers 4]

Each backend runs in processes of its own, in turn, so that what disturbs the machine disturbs all. A step computes old
logprobs first, because it takes two updates; the transfer is what the engines would be sent.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BACKENDS = ("fsdp", "zero1", "zero2", "zero3")
PARTS = ("plan", "score", "forward_backward", "optimizer", "transfer")
NAMES = {
    "plan": "images, facts, plan",
    "score": "old logprobs",
    "forward_backward": "forward and backward",
    "optimizer": "clip and AdamW",
    "transfer": "all tensors once",
}
VOCAB = 8192


def write_model(folder: Path, *, width: int, layers: int) -> None:
    """Write a Qwen2.5-VL folder with random weights."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    from tests.benchmarks.learner_batch import TOKEN_PIXELS, qwen_config

    torch.manual_seed(0)
    config = qwen_config(width=width, layers=layers, vision_width=128, vision_layers=4, vocab_size=VOCAB)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    Qwen2VLImageProcessor(min_pixels=TOKEN_PIXELS**2, max_pixels=(64 * TOKEN_PIXELS) ** 2).save_pretrained(folder)


def measure(backend: str, folder: Path, num_steps: int) -> dict[str, float]:
    """Train in this process; give seconds by part and MiB."""
    from learner.config import AlgorithmConfig, DeepSpeedConfig, LearnerConfig, OptimizerConfig
    from learner.training.trainer import PolicyTrainer
    from tests.benchmarks.learner_batch import make_group, resident_mib

    algorithm = AlgorithmConfig(old_logprobs="recomputed", num_minibatches=2, aggregation="token")
    config = LearnerConfig(optimizer=OptimizerConfig(learning_rate=1e-5), model_path=str(folder), algorithm=algorithm)
    if backend != "fsdp":
        stage = int(backend[-1])
        config = LearnerConfig(
            optimizer=OptimizerConfig(learning_rate=1e-5),
            model_path=str(folder),
            algorithm=algorithm,
            backend="deepspeed",
            deepspeed=DeepSpeedConfig(zero_stage=stage),  # type: ignore[arg-type]
        )
    trainer = PolicyTrainer(config, rank=0, world_size=1, master_address="127.0.0.1", master_port=0)
    loaded = resident_mib()
    groups = [
        make_group(f"g{i}", lengths=[60] * 8, prompt_tokens=160, image_side=308, vocab_size=VOCAB) for i in range(8)
    ]
    trainer.train_step(groups, step=0)
    found: dict[str, list[float]] = {part: [] for part in PARTS}
    for step in range(1, num_steps + 1):
        report = trainer.train_step(groups, step=step)
        for part, seconds in report.seconds.items():
            found[part].append(seconds)
        started = time.perf_counter()
        for _ in trainer.backend.full_tensors():
            pass
        found["transfer"].append(time.perf_counter() - started)
    trainer.close()
    medians = {part: float(np.median(values)) for part, values in found.items()}
    return {**medians, "loaded_mib": loaded, "peak_mib": resident_mib()}


def main() -> None:
    """Print one column a backend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--backend", choices=BACKENDS)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.backend:
        print(json.dumps(measure(options.backend, options.folder, options.steps)))
        return
    rounds: dict[str, list[dict[str, float]]] = {backend: [] for backend in BACKENDS}
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name), width=options.width, layers=options.layers)
        size = (Path(name) / "model.safetensors").stat().st_size / 2**20
        for _ in range(options.rounds):
            for backend in BACKENDS:
                command = [sys.executable, "-m", "tests.benchmarks.learner_parts", f"--backend={backend}"]
                command += [f"--folder={name}", f"--steps={options.steps}"]
                output = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)
                rounds[backend].append(json.loads(output.splitlines()[-1]))
    print(f"weights of {size:.0f} MiB, float32, one rank, one thread; 8 groups of 8, prompts of 160 tokens, 121 of an")
    print(
        f"image, completions of 60; two updates a step; ms, median of {options.rounds} rounds of {options.steps} steps"
    )
    print(f"{'':<22}" + "".join(f"{backend:>10}" for backend in BACKENDS))
    for part in PARTS:
        values = [1e3 * np.median([found[part] for found in rounds[backend]]) for backend in BACKENDS]
        print(f"{NAMES[part]:<22}" + "".join(f"{value:10.1f}" for value in values))
    for key, title in (("loaded_mib", "MiB after loading"), ("peak_mib", "MiB at the peak")):
        values = [np.median([found[key] for found in rounds[backend]]) for backend in BACKENDS]
        print(f"{title:<22}" + "".join(f"{value:10.0f}" for value in values))
    step = {b: [sum(f[p] for p in PARTS if p != "transfer") for f in rounds[b]] for b in BACKENDS}
    ratios = [np.median(np.array(step[b]) / np.array(step["fsdp"])) for b in BACKENDS]
    print(f"{'step, of fsdp':<22}" + "".join(f"{ratio:10.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
