"""How long the driver's event loop stands still while rows with photographs are read: on the loop, and in a thread.

    python -m tests.benchmarks.row_reading [--rows 512] [--kib 300]

A ticker asks for its turn every millisecond; how late it gets it is how long the loop was blocked. Inline is what a
draw on the loop costs, twice as in a synchronous run that reads a row for its seat and again for its group.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

TICK_S = 0.001


async def blocked(work: "asyncio.Task[None]") -> tuple[float, float]:
    """Return (seconds in all, longest in one go) by which the loop was late beside some work."""
    late: list[float] = []
    while not work.done():
        asked = time.perf_counter()
        await asyncio.sleep(TICK_S)
        late.append(max(0.0, time.perf_counter() - asked - TICK_S))
    await work
    return sum(late), max(late)


def main() -> None:
    """Print both, their ratio, and the hardware."""
    from orchestration.train.draws import Draws
    from rollout.config import StreamConfig
    from rollout.dataset import SampleTable, write_samples
    from rollout.records import ImageBytes, Sample
    from tests.benchmarks.hardware import describe_hardware
    from tests.unit.train.run_records import training

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--kib", type=int, default=300)
    options = parser.parse_args()

    settings: Any = SimpleNamespace(
        seed=0, training=training(groups_per_step=options.rows), data=SimpleNamespace(stream=StreamConfig())
    )
    with tempfile.TemporaryDirectory() as name:
        random = np.random.default_rng(0)
        write_samples(
            Path(name) / "rows.parquet",
            (
                Sample(
                    sample_id=str(row),
                    source="photographs",
                    task="chart",
                    question="?",
                    answer="!",
                    images=(ImageBytes(data=random.bytes(options.kib * 1024), width=640, height=480),),
                )
                for row in range(options.rows)
            ),
        )

        async def inline() -> None:
            draws = Draws(SampleTable(Path(name) / "rows.parquet"), settings)
            for position in [*range(options.rows)] * 2:
                draws.stream.draw(position)

        async def in_thread() -> None:
            draws = Draws(SampleTable(Path(name) / "rows.parquet"), settings)
            await draws.read(range(options.rows))

        async def measure(read: Callable[[], Coroutine[Any, Any, None]]) -> tuple[float, float]:
            return await blocked(asyncio.create_task(read()))

        asyncio.run(measure(inline))  # warms the page cache
        found = {reading.__name__: asyncio.run(measure(reading)) for reading in (inline, in_thread)}
    print(
        json.dumps(
            {
                **{f"{key}_blocked_s": round(total, 4) for key, (total, _) in found.items()},
                **{f"{key}_longest_s": round(longest, 4) for key, (_, longest) in found.items()},
                "ratio": round(found["inline"][0] / found["in_thread"][0], 1),
                "rows": options.rows,
                "kib": options.kib,
                "hardware": describe_hardware(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
