"""SubmitConfig: how `mixed-r1 submit` hands a run to a Ray cluster."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

from orchestration.settings.errors import ConfigError
from orchestration.settings.secrecy import is_secret_name

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """Where the job's driver, which holds no GPU, may stand; with nothing set it is the head node."""

    num_cpus: Annotated[float, Ge(0)]
    """Cores reserved for it."""
    resources: Mapping[str, Annotated[float, Ge(0)]]
    """Custom resources, as `ray start --resources` names them."""
    labels: Mapping[str, str]
    """Labels of the node, as `ray start --labels` names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitConfig:
    """How a run becomes a Ray job."""

    address: Annotated[str, MinLen(1)] | None
    """Of the cluster's dashboard; null reads RAY_API_SERVER_ADDRESS."""
    name: str | None
    """Jobs are called <name>-<attempt>; null takes the name of run_dir and a hash of its path."""
    python: Annotated[str, MinLen(1)]
    """The Python of the cluster's machines, which has the packages of the lock."""
    ship_code: bool
    """Send the project's own packages with the job; false takes what is installed on the cluster's machines."""
    max_package_mib: Annotated[float, Gt(0)]
    """Code above this size is refused. Every node holds a copy; Ray itself takes up to 512."""
    environment: Mapping[str, str]
    """Variables of the job and all its actors. Ray's dashboard shows them, so no secrets."""
    pass_environment: tuple[str, ...]
    """Names of variables that the job takes over from the shell of `mixed-r1 submit`. No secrets either."""
    require_environment: tuple[str, ...]
    """Names that must be set on the machine of the driver, such as WANDB_API_KEY; the job ends at once where one is
    missing. Values never leave that machine."""
    driver: DriverConfig
    follow: bool
    """Show the job's output until it ends; false returns once the job is accepted."""
    on_interrupt: Literal["detach", "stop"]
    """What Ctrl-C does to a job that is followed: leave it running, or let it save and end."""
    if_running: Literal["refuse", "follow"]
    """What to do where a job of this name runs already."""
    max_attempts: Annotated[int, Ge(1)]
    """Jobs in all, where one saved itself and left, or lost its machine. Needs `follow`."""
    retry_wait_s: Annotated[float, Ge(0), Le(10**9)]
    """Before the next attempt; time for nodes to come back."""
    stop_wait_s: Annotated[float, Ge(0), Le(10**9)]
    """Time between the request to stop and the kill: a training step and a checkpoint."""
    allow_temporary_run_dir: bool
    """Accept a run_dir below /tmp or the like, for a cluster of one machine."""

    def __post_init__(self) -> None:
        """Check names, and that what attempts need is there."""
        if self.max_attempts > 1 and not self.follow:
            raise ConfigError(
                f"submit.max_attempts is {self.max_attempts}, but with submit.follow=false nobody is there to submit "
                "again; set submit.max_attempts=1 or submit.follow=true"
            )
        if self.name is not None and not JOB_NAME.fullmatch(self.name):
            raise ConfigError(f"submit.name is {self.name!r}; use letters, digits, dots, hyphens and underscores")
        for key in ("environment", "pass_environment", "require_environment"):
            for name in getattr(self, key):
                if not VARIABLE_NAME.fullmatch(name):
                    raise ConfigError(f"submit.{key} names {name!r}, which no environment variable can be called")
        for name in (*self.environment, *self.pass_environment):
            if is_secret_name(name):
                raise ConfigError(
                    f"{name} looks like a secret, and Ray's dashboard shows the environment of a job; set it on the "
                    f"cluster's machines and name it in submit.require_environment=[{name}]"
                )
