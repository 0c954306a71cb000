"""Pickles of plain containers, texts and numbers; anything that would run code or build an object is refused."""

import pickle
from pathlib import Path
from typing import Any, NoReturn

from orchestration.settings.errors import DataError


def load_plain_pickle(path: Path) -> object:
    """Load lists, tuples, sets, dicts, texts, bytes, numbers, truth values and null.

    Texts of Python 2 are read as UTF-8.

    Raises:
        DataError: The file is broken, or names a class or function: a pickle can run any program when it is loaded.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8", errors="replace").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"{path} is no readable pickle ({type(error).__name__}: {error}); download it again") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise DataError(
            f"the pickle names {module_name}.{global_name}; only plain containers, texts and numbers are loaded, "
            "because anything else may run a program. Get the file from its authors, or convert it to JSON"
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        raise DataError("the pickle refers to objects outside it; only plain containers, texts and numbers are loaded")
