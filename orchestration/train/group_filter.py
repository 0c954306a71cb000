"""training.filter: a function of the user's that decides whether a scored group is trained on."""

from collections.abc import Callable

from conf.own_code import OwnCodeError, load_own, raised_by
from orchestration.settings.errors import ConfigError
from orchestration.workers.tickets import GroupSummary

KEY = "training.filter"


class FilterFailedError(ValueError):
    """The function raised, or returned something else than True or False; the group is dropped with this reason."""


def load_group_filter(path: str | None) -> Callable[[GroupSummary], bool] | None:
    """Return the function that says whether a group is trained on; None where all are.

    Raises:
        ConfigError: There is no such function, or its code raises while it is imported.
    """
    if path is None:
        return None
    try:
        function = load_own(KEY, path)
    except OwnCodeError as error:
        raise ConfigError(str(error)) from error
    if not callable(function):
        raise ConfigError(f"{KEY}={path} is a {type(function).__name__}; name a function keep(group)")

    def keep(group: GroupSummary) -> bool:
        try:
            found = function(group)
        except Exception as error:
            raise FilterFailedError(f"{KEY} raised {raised_by(function, error)}") from error
        if type(found).__name__ not in ("bool", "bool_"):
            raise FilterFailedError(f"{KEY} returned {str(found)[:80]}; it must return True or False")
        return bool(found)

    return keep
