"""How long a checkpoint stops training: staging alone, against staging and copying in line. One rank on a CPU.

    python -m tests.benchmarks.checkpoint_blocking [--rounds 9] [--width 128] [--layers 3] [--directory FOLDER]

Both times come from the same checkpoints, so what disturbs the machine disturbs both. Staging and checkpoint directory
are on the same disk unless told otherwise; the slower the checkpoint directory, the larger the ratio.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np


def measure(trainer: object, directory: Path, num_rounds: int) -> dict[str, list[float]]:
    """Give seconds of staging, and of copying and marking, by round."""
    from learner import checkpoint
    from learner.store import open_store
    from learner.training.trainer import PolicyTrainer

    assert isinstance(trainer, PolicyTrainer)
    store = open_store(directory)
    found: dict[str, list[float]] = {"stage": [], "copy": []}
    for step in range(num_rounds + 1):
        started = time.perf_counter()
        share = trainer.stage(step=step)
        staged = time.perf_counter()
        files = trainer.upload(store, step=step)
        checkpoint.mark(store, share, files, extra={}, scores={})
        copied = time.perf_counter()
        checkpoint.remove(store, step)
        if step:  # The first one warms up.
            found["stage"].append(staged - started)
            found["copy"].append(copied - staged)
    return found | {"mib": [sum(entry.num_bytes for entry in files) / 2**20]}


def main() -> None:
    """Print medians, their ratio and its range, and the hardware."""
    from learner.config import LearnerConfig, OptimizerConfig
    from learner.training.trainer import PolicyTrainer
    from tests.benchmarks.hardware import describe_hardware
    from tests.benchmarks.learner_batch import make_group
    from tests.benchmarks.learner_parts import VOCAB, write_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name) / "model", width=options.width, layers=options.layers)
        config = LearnerConfig(optimizer=OptimizerConfig(learning_rate=1e-5), model_path=f"{name}/model")
        trainer = PolicyTrainer(config, rank=0, world_size=1, master_address="127.0.0.1", master_port=0)
        # Moments exist from the first update on.
        group = make_group("g", lengths=[10] * 4, prompt_tokens=40, image_side=56, vocab_size=VOCAB)
        trainer.train_step([group], step=0)
        found = measure(trainer, options.directory or Path(name) / "kept", options.rounds)
        trainer.close()
    stage, copy = np.array(found["stage"]), np.array(found["copy"])
    ratios = (stage + copy) / stage
    print(
        json.dumps(
            {
                "checkpoint_mib": round(found["mib"][0], 1),
                "stage_ms": round(1e3 * float(np.median(stage)), 1),
                "stage_and_copy_ms": round(1e3 * float(np.median(stage + copy)), 1),
                "ratio_median": round(float(np.median(ratios)), 2),
                "ratio_range": [round(float(ratios.min()), 2), round(float(ratios.max()), 2)],
                "hardware": describe_hardware(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
