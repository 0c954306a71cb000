"""The settings of `mixed-r1 evaluate`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from orchestration.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """What is evaluated, how it is asked, and what is made of the answers."""

    checkpoint: Annotated[str, "path"] | None
    """Hugging Face folder, run folder, or checkpoint of a run; null takes the model of the other settings."""
    data: Annotated[str, "path"] | None
    """Parquet file or folder of shards; null takes the held-out data of the other settings."""
    preset: str
    """Scoring rules of a benchmark; see orchestration/evaluation/presets."""
    greedy: bool
    """Whether every row gets one completion at temperature 0."""
    num_completions: int
    """Completions a row at rollout.sampling.temperature; 0 for none."""
    pass_ks: tuple[int, ...]
    """Each k of pass@k; none may exceed num_completions."""
    max_samples: int | None
    """Rows, drawn at random from the seed; null takes all."""
    cluster_key: str
    """Metadata key whose equal values are resampled together; empty: rows are independent."""
    num_resamples: int
    """Of the bootstrap and of the permutation test."""
    level: float
    """Of the intervals."""
    num_worst: int
    """Samples shown of each reward function, lowest score first."""
    boxes: Literal["as_given", "pixel", "norm1", "norm1000"]
    """Frame of boxes in the files for other toolkits."""
    out: Annotated[str, "path"] | None
    """Folder of the result; null puts it under run_dir/evaluations."""
    against: Annotated[str, "path"] | None
    """Folder of an earlier evaluation of the same data, to compare with."""

    def __post_init__(self) -> None:
        """Check what can be checked without files."""
        if not self.greedy and self.num_completions < 1:
            raise ConfigError("evaluate.greedy is false and evaluate.num_completions is 0; nothing would be asked")
        if self.num_completions and max(self.pass_ks, default=1) > self.num_completions:
            raise ConfigError(
                f"evaluate.pass_ks holds {max(self.pass_ks)}, more than evaluate.num_completions="
                f"{self.num_completions}; sample more, or ask for a smaller k"
            )
        if min(self.pass_ks, default=1) < 1 or self.num_resamples < 1 or not 0.0 < self.level < 1.0:
            raise ConfigError(
                f"evaluate has pass_ks={list(self.pass_ks)}, num_resamples={self.num_resamples}, level={self.level}; "
                "use k of 1 and more, at least 1 resample, and a level between 0 and 1"
            )
        if self.max_samples is not None and self.max_samples < 1:
            raise ConfigError(f"evaluate.max_samples is {self.max_samples}; use at least 1, or null for all rows")
