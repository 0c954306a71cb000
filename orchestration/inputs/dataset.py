"""Where a run's data is, if it has been made."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from orchestration.demo.prepare import model_folder
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.model import NOT_SET


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where the rows are, or how to make them."""

    train: Path | None
    """File or folder of shards; None where there is none yet."""
    held_out: Path | None
    note: str
    """What to do where it is not there; else empty."""


def known_model_folder(config: ExperimentConfig) -> Path | None:
    """Return the model's folder if it is there: the configured one, or the one that the demo has made."""
    folder = config.model.folder
    if folder is None and config.model.family is not None:
        try:
            folder = model_folder(Path(config.cache_dir), config.demo, config.model.family)
        except PackageNotFoundError:  # its name holds torch's version; where torch is not installed it was never made
            return None
    return folder if folder is not None and folder.is_dir() else None


def locate(config: ExperimentConfig) -> Located:
    """Find the dataset without building it; only cached digests of its raw files are written."""
    if config.data.train is not None and config.data.held_out is not None:
        return _of_files(config.data.train, config.data.held_out)
    recipe = config.data.recipe
    assert recipe is not None  # checked where the configuration was built
    built = Path(config.cache_dir) / "data" / "built"
    out = Path(recipe.out).expanduser().absolute() if recipe.out else None
    candidates = [out] if out else sorted(built.glob(f"{recipe.name}-*"))
    if not any(folder.is_dir() for folder in candidates):
        return _absent(recipe.name)
    folder = known_model_folder(config)
    if folder is None:
        return _absent(recipe.name, "datasets are kept by the model's processor, and the model is not there; ")
    from orchestration.data.plan import Dataset, is_built, plan_build  # adapters of all formats, seldom needed here

    try:
        job = plan_build(config, folder)
        if not is_built(job):
            return _absent(recipe.name)
    except (ConfigError, DataError, OSError) as error:
        return _absent(recipe.name, f"{str(error).splitlines()[0]}; ")
    dataset = Dataset(job.out)
    return Located(train=dataset.train, held_out=dataset.held_out if dataset.held_out.is_dir() else None, note="")


def _of_files(train: str, held_out: str) -> Located:
    files = {"data.train": train, "data.held_out": held_out}
    found = {key: Path(value) if value != NOT_SET and Path(value).exists() else None for key, value in files.items()}
    missing = [
        f"{key} is not set" if files[key] == NOT_SET else f"{key}={files[key]} is not there"
        for key, path in found.items()
        if path is None
    ]
    note = f"{'; '.join(missing)}. mixed-r1 data build makes such files" if missing else ""
    return Located(train=found["data.train"], held_out=found["data.held_out"], note=note)


def _absent(name: str, why: str = "") -> Located:
    note = f"{why}the first `mixed-r1 train` draws the rows, in seconds"
    if name != "demo":
        note = (
            f"{why}recipe {name} is not built: mixed-r1 data build with the same settings, before or as the first step "
            "of train"
        )
    return Located(train=None, held_out=None, note=note)
