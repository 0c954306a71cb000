"""Which rows of a dataset a run draws from: all, or those that data.stream names."""

import numpy as np
from numpy.typing import NDArray

from rollout.config import StreamConfig
from rollout.dataset import SampleTable
from rollout.mixture import find_buckets


def streamed_rows(table: SampleTable, config: StreamConfig) -> NDArray[np.int32]:
    """Give their numbers, ascending, by the rules of the run's own stream.

    Raises:
        RolloutError: the stream's settings do not fit the dataset.
    """
    if config.is_plain:
        return np.arange(len(table), dtype=np.int32)
    return np.sort(np.concatenate(find_buckets(table, config).rows))
