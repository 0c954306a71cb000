"""Stage filter: functions of the user's that decide which rows stay; between normalise and deduplicate.

There rows have their final question and answer, and a row that is left out neither makes another one a duplicate nor
costs time in the search for them. `data.recipe.filters` names the functions; they are asked in its order.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from conf.own_code import OwnCodeError, digest_of, load_own, raised_by
from orchestration.data.chunks import Chunk, ChunkWriter, ImageReader
from orchestration.data.sources.rows import Candidate, Refused, RejectReason, candidate_from_json
from orchestration.data.sources.time_limit import OutOfTimeError, time_limit
from orchestration.data.stages import RowStage, RowStep, stage_code
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.recipe import FilterConfig

SIGNATURE = "keep(row, **parameters), or keep(row, images, **parameters)"
MAX_SAID = 80
"""Characters of a reason; reasons are counted, so they should be few."""


class RowFilter:
    """A function of the user's, loaded and checked."""

    def __init__(self, name: str, config: FilterConfig) -> None:
        """Load the function.

        Raises:
            ConfigError: There is no such function, its code raises while it is imported, or it does not take the
                parameters.
        """
        self.name = name
        self.config = config
        self._key = f"data.recipe.filters.{name}"
        try:
            self._function: Callable[..., Any] = load_own(f"{self._key}.path", config.path)
        except OwnCodeError as error:
            raise ConfigError(str(error)) from error
        if not callable(self._function):
            kind = type(self._function).__name__
            raise ConfigError(f"{self._key}.path={config.path} is a {kind}; name a function {SIGNATURE}")
        signature = inspect.signature(self._function)
        self.takes_images = "images" in signature.parameters
        """Whether the function asks for the encoded images, by a parameter of that name."""
        try:
            signature.bind(None, **({"images": []} if self.takes_images else {}), **config.parameters)
        except TypeError as error:
            given = ", ".join(config.parameters) or "(none)"
            raise ConfigError(
                f"{self._key}.path={config.path} cannot be called with parameters {given}: {error}; it is called as "
                f"{SIGNATURE}"
            ) from error

    def check(self, row: Candidate, images: Callable[[], list[bytes]]) -> None:
        """Ask the function about a row.

        Args:
            row: In canonical form.
            images: Reads its encoded images; called only if the function asks for them.

        Raises:
            Refused: LEFT_OUT, with the reason that the function gives; or FILTER_FAILED, with what it raised, or
                because it returned anything but a bool or (bool, reason).
            DataError: It took longer than its limit. No row is left out for that: another machine may be faster.
        """
        if row.role not in self.config.roles:
            return
        more = {"images": images()} if self.takes_images else {}
        try:
            with time_limit(self.config.timeout_s):
                found = self._function(row, **more, **self.config.parameters)
        except OutOfTimeError as error:
            raise DataError(
                f"{self._key}: {self.config.path} was asked about row {row.source_id} of {row.source}: "
                f"{raised_by(self._function, error)}; correct the function, or raise {self._key}.timeout_s"
            ) from error
        except (Exception, SystemExit) as error:
            raise self._refused(RejectReason.FILTER_FAILED, raised_by(self._function, error)) from error
        keep, said = found if isinstance(found, tuple) and len(found) == 2 else (found, "")
        if type(keep).__name__ not in ("bool", "bool_") or not isinstance(said, str):
            what = f"returned {found!r}"[: MAX_SAID // 2]
            raise self._refused(RejectReason.FILTER_FAILED, f"{what}; it must be True, False or (bool, reason)")
        if not keep:
            raise self._refused(RejectReason.LEFT_OUT, said)

    def _refused(self, reason: RejectReason, said: str) -> Refused:
        counted = " ".join(said.split())[:MAX_SAID]
        return Refused(
            reason, f"{self.name}: {said}" if said else self.name, "/".join(filter(None, (self.name, counted)))
        )


def filter_code(filters: Mapping[str, FilterConfig]) -> dict[str, str]:
    """Return the digest of the code of every filter.

    Raises:
        ConfigError: There is no such file or module.
    """
    try:
        return {name: digest_of(f"data.recipe.filters.{name}.path", one.path) for name, one in filters.items()}
    except OwnCodeError as error:
        raise ConfigError(str(error)) from error


def filter_stage(filters: Mapping[str, FilterConfig], code: Mapping[str, str], store: Path) -> RowStage:
    """Return the stage of all filters.

    Args:
        filters: By name, in the order in which they are asked.
        code: Digest of the code of each.
        store: Folder of all chunks.
    """
    key = [[name, code[name], dict(one.parameters), list(one.roles)] for name, one in filters.items()]
    return RowStage(
        name="filter", key=[key, stage_code("filter")], opened=partial(_opened, dict(filters), dict(code), store)
    )


@contextmanager
def _opened(
    filters: Mapping[str, FilterConfig], code: Mapping[str, str], store: Path, chunk: Chunk, writer: ChunkWriter
) -> Iterator[RowStep]:
    if filter_code(filters) != code:
        raise DataError("code of data.recipe.filters has changed since the build began; start it again")
    loaded = [RowFilter(name, one) for name, one in filters.items()]
    reader = ImageReader(store)

    def step(values: dict[str, Any]) -> dict[str, Any]:
        row = candidate_from_json(values)
        for one in loaded:
            one.check(row, lambda: [reader.read(image.chunk, image.index) for image in row.images])
        return values

    yield step
