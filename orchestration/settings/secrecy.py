"""Settings that look like secrets, which are refused."""

import re
from collections.abc import Iterator, Mapping, Sequence

from orchestration.settings.errors import ConfigError

SECRET_WORDS = re.compile(
    r"(^|[^a-z0-9])(token|secret|authorization|cookie|password|passwd|passphrase|credentials?|(api|access|secret|private)_?key(_?id)?)$",
    re.IGNORECASE,
)
"""The end of a name that holds a secret: HF_TOKEN, api_key, AWS_ACCESS_KEY_ID, but not max_tokens or token_budget."""
VARIABLE_KEY = re.compile(r"_KEY$")
"""Environment variables such as KAGGLE_KEY; settings in lower case may well end in `key`."""
SECRET_VALUE = re.compile(
    r"://[^/@\s:]*:[^/@\s]+@"  # user:password@host
    r"|\b(hf_|gh[pousr]_|sk-|AKIA)[A-Za-z0-9_-]{16,}"  # what well-known services begin theirs with
)
PUBLISHED = ("model.hf_config", "model.hf_processor")
"""Copies of public files, whose `token` settings name parts of a vocabulary."""
REMEDY = (
    "settings are written to run_dir and shown in logs and dashboards. Set it as an environment variable on the "
    "machines instead; cluster.pass_environment takes it from the driver to every actor by its name, and "
    "submit.require_environment refuses to begin without it"
)


def is_secret_name(name: str) -> bool:
    """Return whether a setting or variable of this name would hold a secret.

    Example:
        >>> is_secret_name("WANDB_API_KEY"), is_secret_name("max_completion_tokens")
        (True, False)
    """
    return bool(SECRET_WORDS.search(name) or VARIABLE_KEY.search(name))


def refuse_secrets(values: Mapping[str, object]) -> None:
    """Raise ConfigError where composed settings hold a secret, naming the key, never its value."""
    for key, value in _leaves(values, ""):
        if not key.startswith(PUBLISHED):
            _refuse(key, value)


def refuse_secret_overrides(overrides: Sequence[str]) -> None:
    """Raise ConfigError where `key=value` arguments hold a secret, before anything repeats them in a message."""
    for override in overrides:
        key, _, value = override.partition("=")
        if not key.lstrip("+~").startswith(PUBLISHED):
            _refuse(key.lstrip("+~"), None if value == "null" else value)


def _refuse(key: str, value: object) -> None:
    if not isinstance(value, str) or value == "":
        return
    if is_secret_name(key):
        raise ConfigError(f"{key} looks like a secret, and {REMEDY}")
    if SECRET_VALUE.search(value):
        raise ConfigError(f"the value of {key} looks like it holds a secret, and {REMEDY}")


def _leaves(value: object, key: str) -> Iterator[tuple[str, object]]:
    """Yield every value that is no container, with its dotted key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{key}[{index}]")
    else:
        yield key, value
