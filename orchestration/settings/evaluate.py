"""The settings of `mixed-r1 evaluate`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from orchestration.settings.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """What is evaluated, how it is asked, and what is made of the answers."""

    checkpoint: Annotated[str, "path", MinLen(1)] | None
    """Hugging Face folder, run folder, or checkpoint of a run; null takes the model of the other settings."""
    data: Annotated[str, "path", MinLen(1)] | None
    """Parquet file or folder of shards; null takes the held-out data of the other settings."""
    preset: Annotated[str, MinLen(1)]
    """Scoring rules of a benchmark; see orchestration/evaluate/benchmarks.py."""
    greedy: bool
    """Whether every row gets one completion at temperature 0."""
    num_completions: Annotated[int, Ge(0)]
    """Completions a row at rollout.sampling.temperature; 0 for none."""
    pass_ks: tuple[Annotated[int, Ge(1)], ...]
    """Each k of pass@k; none may exceed num_completions."""
    max_samples: Annotated[int, Ge(1)] | None
    """Rows, drawn at random from the seed; null takes all."""
    cluster_key: str
    """Metadata key whose equal values are resampled together; empty: rows are independent."""
    num_resamples: Annotated[int, Ge(1)]
    """Of the bootstrap and of the permutation test."""
    level: Annotated[float, Gt(0), Lt(1)]
    """Of the intervals."""
    num_worst: Annotated[int, Ge(0)]
    """Samples shown of each reward function, lowest score first."""
    boxes: Literal["as_given", "pixel", "norm1", "norm1000"]
    """Frame of boxes in the files for other toolkits."""
    out: Annotated[str, "path", MinLen(1)] | None
    """Folder of the result; null puts it under run_dir/evaluations."""
    against: Annotated[str, "path", MinLen(1)] | None
    """Folder of an earlier evaluation of the same data, to compare with."""

    def __post_init__(self) -> None:
        """Check what can be checked without files."""
        if not self.greedy and self.num_completions == 0:
            raise ConfigError("evaluate.greedy is false and evaluate.num_completions is 0; nothing would be asked")
        if self.num_completions and max(self.pass_ks, default=1) > self.num_completions:
            raise ConfigError(
                f"evaluate.pass_ks holds {max(self.pass_ks)}, more than evaluate.num_completions="
                f"{self.num_completions}; sample more, or ask for a smaller k"
            )
