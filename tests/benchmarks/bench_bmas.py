"""BMAS of a group against the loop over pairs that the formula reads like, on one thread, over a table of real size.

    python -m tests.benchmarks.bench_bmas [--rows 152064] [--width 3584] [--tokens 1000] [--replies 8]

Texts share words as captions of one image do: each draws its tokens, Zipf-distributed, from four fifths of one common
vocabulary of 600. The table lies in a file as bfloat16 and is mapped, as a checkpoint's is.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import argparse
import json
import resource
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewards.core.config import OpenEndedConfig
from rewards.functions.bmas import Text, bmas_group
from rewards.functions.embedding_table import EmbeddingTable

VOCABULARY = 600
KEPT = 0.8
REPEATS = 7
HOSTILE_TOKENS = OpenEndedConfig().max_distinct_tokens
"""All different, none in the reference: the most that one answer can cost."""
CHUNK_ROWS = 8192


def write_checkpoint(folder: Path, num_rows: int, width: int) -> None:
    """Write a safetensors file with one bfloat16 table of random rows that share a direction."""
    generator = np.random.default_rng(0)
    shared = generator.standard_normal(width, dtype=np.float32)
    header = {
        "model.embed_tokens.weight": {
            "dtype": "BF16",
            "shape": [num_rows, width],
            "data_offsets": [0, 2 * num_rows * width],
        }
    }
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, num_rows, CHUNK_ROWS):
            count = min(CHUNK_ROWS, num_rows - start)
            rows = generator.standard_normal((count, width), dtype=np.float32) + np.float32(0.5) * shared
            file.write((rows.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def captions(num_rows: int, num_tokens: int, count: int) -> list[list[int]]:
    """Draw texts that share words."""
    generator = np.random.default_rng(1)
    words = generator.choice(num_rows, VOCABULARY, replace=False)
    texts = []
    for _ in range(count):
        weights = (generator.random(VOCABULARY) < KEPT) / np.arange(1.0, VOCABULARY + 1.0)
        texts.append(words[generator.choice(VOCABULARY, num_tokens, p=weights / weights.sum())].tolist())
    return texts


def loop_over_pairs(
    gold: list[int], replies: list[list[int]], table: EmbeddingTable, dtype: type[np.floating] = np.float32
) -> list[float]:
    """The formula as it stands: all tokens of both texts, one product a pair."""
    values = []
    for reply in replies:
        left, right = _unit(table, reply, dtype), _unit(table, gold, dtype)
        similarity = left @ right.T
        values.append(float((similarity.max(axis=1).mean() + similarity.max(axis=0).mean()) / 2))
    return values


def _unit(table: EmbeddingTable, ids: list[int], dtype: type[np.floating]) -> NDArray[np.floating]:
    rows = table.rows(np.asarray(ids)).astype(dtype)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def hostile_milliseconds(gold: list[int], table: EmbeddingTable, seed: int) -> float:
    """Time one reply of different tokens whose rows nobody has read yet."""
    reply = np.random.default_rng(seed).choice(table.shape[0], HOSTILE_TOKENS, replace=False).tolist()
    started = time.process_time()
    bmas_group(Text(gold), [Text(reply)], table)
    return 1e3 * (time.process_time() - started)


def main() -> None:
    """Print medians, their ratio, the error against float64, and the memory that a call needs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=152_064)
    parser.add_argument("--width", type=int, default=3584)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--replies", type=int, default=8)
    sizes = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder, sizes.rows, sizes.width)
        table = EmbeddingTable.from_checkpoint(folder)
        gold, *replies = captions(sizes.rows, sizes.tokens, sizes.replies + 1)
        distinct = [len(set(text)) for text in (gold, *replies)]
        print(f"table {sizes.rows} x {sizes.width} bfloat16, mapped; {sizes.replies} replies of {sizes.tokens} tokens")
        print(f"distinct tokens: reference {distinct[0]}, replies {min(distinct[1:])} to {max(distinct[1:])}, ", end="")
        print(f"union of replies {len(set().union(*replies))}")
        seconds: dict[str, list[float]] = {"loop": [], "group": []}
        for _ in range(REPEATS):
            started = time.process_time()
            loop_over_pairs(gold, replies, table)
            middle = time.process_time()
            values = bmas_group(Text(gold), [Text(reply) for reply in replies], table)
            seconds["loop"].append(middle - started)
            seconds["group"].append(time.process_time() - middle)
        exact = loop_over_pairs(gold, replies, table, np.float64)
        tracemalloc.start()
        bmas_group(Text(gold), [Text(reply) for reply in replies], table)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        hostile_ms = [hostile_milliseconds(gold, table, seed) for seed in range(REPEATS)]
    medians = {kind: 1e3 * float(np.median(times)) for kind, times in seconds.items()}
    ratios = np.array(seconds["loop"]) / np.array(seconds["group"])
    error = max(abs(value - other) for value, other in zip(values, exact, strict=True))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"loop over pairs, float32   {medians['loop']:8.1f} ms of CPU (median of {REPEATS})")
    print(f"group                      {medians['group']:8.1f} ms of CPU")
    print(f"ratio                      {np.median(ratios):8.1f}    (rounds: {ratios.min():.1f} to {ratios.max():.1f})")
    print(f"error against float64      {error:8.1e}")
    print(f"extra memory at the peak   {peak / 2**20:8.1f} MiB")
    print(f"one hostile reply          {np.median(hostile_ms):8.1f} ms of CPU ({HOSTILE_TOKENS} different tokens)")
    print(f"table on disk              {2 * sizes.rows * sizes.width / 2**20:8.1f} MiB")
    print(f"largest resident set       {resident:8.1f} MiB, the loop and file pages included")


if __name__ == "__main__":
    main()
