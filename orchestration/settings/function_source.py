"""A function that was defined in a notebook becomes a file, so that it is code of the user's like any other."""

import ast
import builtins
import dis
import hashlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from orchestration.settings.errors import ConfigError


def code_of(key: str, function: Any, folder: Path) -> str:
    """Return `FILE.py:NAME` of a function: of its own file, or of one written with its source.

    A file is written for a function of a notebook or of the script that runs. It holds the function, the functions and
    plain values (numbers, texts, lists, dicts, ...) that it uses by their names, and imports of the modules, functions
    and classes that it uses from elsewhere.

    Args:
        key: the setting, for messages.
        function: what the setting shall name.
        folder: where the file is written, under a digest of its content.

    Raises:
        ConfigError: its source is not known, or it uses something that a file cannot hold.
    """
    # A lambda is named <lambda>, also at the top level.
    if not isinstance(function, FunctionType) or not function.__qualname__.isidentifier():
        kind = getattr(function, "__qualname__", type(function).__name__)
        raise ConfigError(f"{key} is {kind}; {_remedy('give a function that was defined with def at the top level')}")
    if function.__module__ != "__main__" and (file := inspect.getsourcefile(function)) and Path(file).is_file():
        return f"{Path(file).absolute()}:{function.__name__}"
    parts: dict[str, str] = {}
    _collect(key, function, parts)
    imports = sorted(part for part in parts.values() if part.startswith(("import ", "from ")))
    others = [part for part in parts.values() if not part.startswith(("import ", "from "))]
    text = "\n".join([*imports, "", *others]) + "\n"
    written = folder / hashlib.blake2b(text.encode(), digest_size=8).hexdigest() / f"{function.__name__}.py"
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(text)
    return f"{written.absolute()}:{function.__name__}"


def _collect(key: str, function: FunctionType, parts: dict[str, str]) -> None:
    """Add the source of a function to `parts`, by name, behind that of what it uses."""
    name = function.__name__
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise ConfigError(f"{key}: the source of {name} is not known ({error}); {_remedy()}") from error
    if function.__closure__:
        free = ", ".join(function.__code__.co_freevars)
        raise ConfigError(f"{key}: {name} uses {free} of the function around it; {_remedy('make it an argument')}")
    parts[name] = source
    used = {*_globals_of(function.__code__), *_outside_the_body(source)}
    for other in sorted(used - parts.keys()):
        if other in function.__globals__:
            value = function.__globals__[other]
            if isinstance(value, FunctionType) and value.__module__ == "__main__":
                _collect(key, value, parts)
            else:
                parts[other] = _written(key, name, other, value)
        elif not hasattr(builtins, other):
            raise ConfigError(f"{key}: {name} uses {other}, which is not defined; define it before")
    parts[name] = parts.pop(name)


def _globals_of(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_of(constant)


def _outside_the_body(source: str) -> Iterator[str]:
    """Yield names of defaults, annotations and decorators, which are read when the function is defined."""
    [function] = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    for part in (function.args, function.returns, *function.decorator_list):
        if part is not None:
            yield from (node.id for node in ast.walk(part) if isinstance(node, ast.Name))


def _written(key: str, function: str, name: str, value: Any) -> str:
    """Return the line that makes a value of the notebook in another process."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}"
    module, found = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if isinstance(module, str) and module != "__main__" and found.isidentifier():
        return f"from {module} import {found} as {name}"
    if isinstance(value, re.Pattern):
        made = f"_make_{name}"  # `re` may be another module of the notebook
        return f"from re import compile as {made}\n{name} = {made}({value.pattern!r}, {value.flags})"
    text = repr(value)
    try:
        if ast.literal_eval(text) == value:
            return f"{name} = {text}"
    except (SyntaxError, ValueError):
        pass
    raise ConfigError(
        f"{key}: {function} uses {name}, a {type(value).__name__} that a file cannot hold; "
        f"{_remedy('make it inside the function')}"
    )


def _remedy(way: str = "") -> str:
    return (f"{way}, or " if way else "") + "write it to a file and name that: FILE.py:NAME"
