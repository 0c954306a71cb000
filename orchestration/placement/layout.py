"""Which machine and GPU every actor gets: pure, the same for a plan and for a run."""

from collections.abc import Sequence

from orchestration.config.experiment import ExperimentConfig
from orchestration.errors import ConfigError
from orchestration.placement.machines import Layout, Machine


def lay_out(config: ExperimentConfig, machines: Sequence[Machine]) -> Layout:
    """Seat every actor of a run.

    Raises:
        ConfigError: the machines cannot hold them; says what is missing where, and which key to change.
    """
    raise ConfigError("written next")
