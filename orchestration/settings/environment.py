"""Checks names of variables that actors get, and patterns that would take everything along."""

import re
from collections.abc import Mapping

from orchestration.settings.errors import ConfigError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_environment(environment: Mapping[str, str], passed: tuple[str, ...]) -> None:
    """Check `cluster.environment` and `cluster.pass_environment`.

    Raises:
        ConfigError: a name that cannot be, or a pattern without a name. The value of a variable is never repeated;
            `orchestration.settings.secrecy` refuses those that hold a secret.
    """
    for name in environment:
        if not NAME.fullmatch(name):
            raise ConfigError(f"cluster.environment.{name} is no name of a variable; use letters, digits and _")
    for pattern in passed:
        if not NAME.fullmatch(pattern.removesuffix("*")):
            raise ConfigError(
                f"cluster.pass_environment has {pattern!r}; use the name of a variable, or the beginning of one and a "
                "*, such as NCCL_*. Everything the driver has would include what is true of its machine alone"
            )
