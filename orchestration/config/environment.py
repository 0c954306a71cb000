"""Refuses secrets where settings would write them down, and patterns that would take everything along."""

import re
from collections.abc import Mapping

from orchestration.errors import ConfigError

SECRET = re.compile(
    r"TOKEN(?!IZ|S)|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE_KEY|AUTHORIZATION|COOKIE|_KEY$", re.IGNORECASE
)
"""Names behind which secrets stand; numbers of TOKENS and TOKENIZERS_PARALLELISM are none."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_environment(environment: Mapping[str, str], passed: tuple[str, ...]) -> None:
    """Check `cluster.environment` and `cluster.pass_environment`.

    Raises:
        ConfigError: a name that cannot be, a secret that would be written into run_dir/config.json, or a pattern
            without a name. The value of a variable is never repeated.
    """
    for name in environment:
        if not NAME.fullmatch(name):
            raise ConfigError(f"cluster.environment.{name} is no name of a variable; use letters, digits and _")
        if SECRET.search(name):
            raise ConfigError(
                f"cluster.environment.{name} looks like a secret, and settings are written to run_dir/config.json; set "
                f"{name} in the environment of the driver and add its name to cluster.pass_environment"
            )
    for pattern in passed:
        if not NAME.fullmatch(pattern.removesuffix("*")):
            raise ConfigError(
                f"cluster.pass_environment has {pattern!r}; use the name of a variable, or the beginning of one and a "
                "*, such as NCCL_*. Everything the driver has would include what is true of its machine alone"
            )
