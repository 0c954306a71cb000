"""Config groups: folders of YAML files from which `group=name` chooses one, the user's own before those of conf."""

from collections.abc import Iterator
from pathlib import Path

import conf
from conf.ranges import nearest
from orchestration.settings.describe import setting_type
from orchestration.settings.errors import ConfigError

CONF = Path(conf.__file__).parent
EMPTY_GROUPS = ("experiment", "ablation")
"""Groups of settings from which nothing is chosen by default, so that the settings hold no key of theirs."""


class ConfigGroups:
    """The groups of a command: those of conf, and of the folder that `--config-dir` names."""

    def __init__(self, own: Path | None = None) -> None:
        """Look at the user's folder.

        Args:
            own: holds folders of groups, such as experiment/NAME.yaml; None is none.

        Raises:
            ConfigError: it is no such folder.
        """
        self.own = own
        self._folders = [CONF] if own is None else [own, CONF]
        if own is None:
            return
        groups = sorted(path.name for path in CONF.iterdir() if path.is_dir() and not path.name.startswith("_"))
        layout = f"a file is chosen as experiment=NAME from {own}/experiment/NAME.yaml"
        if not own.is_dir():
            state = "is a file; --config takes one" if own.exists() else "does not exist"
            beside = [path.name for path in own.parent.iterdir() if path.is_dir()] if own.parent.is_dir() else []
            near = nearest(own.name, beside)
            hint = f"; did you mean {own.parent / near}?" if near and not own.exists() else ""
            raise ConfigError(f"--config-dir={own} {state}{hint}")
        if not any((own / group).is_dir() for group in groups):
            raise ConfigError(f"--config-dir={own} holds no group of settings: {layout}; groups: {', '.join(groups)}")
        if (own / "config.yaml").is_file():
            raise ConfigError(
                f"--config-dir={own} holds a config.yaml, which is not read from there: {layout}; settings in one file "
                "are given as --config FILE"
            )

    def names(self) -> list[str]:
        """Return the groups of conf, those last that are laid over the others."""
        groups = sorted(path.name for path in CONF.iterdir() if path.is_dir() and not path.name.startswith("_"))
        return sorted(groups, key=lambda group: group in EMPTY_GROUPS)

    def is_group(self, key: str) -> bool:
        """Return whether a key, without + and ~, chooses a file."""
        return "." not in key and any((folder / key.partition("@")[0]).is_dir() for folder in self._folders)

    def choices(self, group: str) -> list[str]:
        """Return the files of a group, without parts of others (`_...`) or groups below it (learner/lora)."""
        return list(dict.fromkeys(name for folder in self._folders for name in _files(folder / group, group)))

    def no_choice(self, group: str, value: str) -> str:
        """Return a message that a group has no such file: its choices and the nearest one."""
        choices = self.choices(group)
        below = [choice for choice in choices if value and choice.startswith(f"{value.rstrip('/')}/")]
        if below:
            return f"{group}={value} is a folder; choose {', '.join(f'{group}={choice}' for choice in below)}"
        near = nearest(value, choices)
        hint = f"did you mean {group}={near}? " if near else ""
        return f"{group}={value} is not there; {hint}choices: {', '.join(choices)}"


def _files(folder: Path, group: str) -> Iterator[str]:
    for file in sorted(folder.rglob("*.yaml")):
        parts = file.relative_to(folder).with_suffix("").parts
        if not any(part.startswith("_") for part in parts) and (
            len(parts) == 1 or not setting_type(f"{group}.{parts[0]}")
        ):
            yield "/".join(parts)
