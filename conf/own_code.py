"""Code of the user, named in a setting as `folder/file.py:name` or `package.module:name`, without a change to ours.

What belongs to it are the file, every file that it imports from its own folder or package, and the data beside it that
it finds by `__file__`. All are hashed, so that a resumed run can tell whether the code has changed, and copied into the
run folder and along with a submitted job. A field of the settings that names code says so: `Annotated[str, OwnCode()]`.
"""

import ast
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from conf.ranges import nearest

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


MAX_NAME = 200
"""Characters of a text in code that may name a file beside it."""


@dataclass(frozen=True, slots=True)
class OwnCode:
    """Marks a setting that names code of the user, always or instead of one of our names: `Annotated[str, OwnCode()]`.

    By the mark alone paths are made absolute, checked before a run starts, digested for resume, and shipped with a job.
    """


class OwnCodeError(ValueError):
    """Code of the user that cannot be loaded; the message names the setting, what was found, and the remedy."""


def is_own(text: str) -> bool:
    """Return whether a setting names code of the user and not one of our names.

    Example:
        >>> is_own("my_rewards.py:score"), is_own("chart")
        (True, False)
    """
    return ":" in text


def settled(text: str) -> str:
    """Return what names code with its file's path from the root, ~ expanded; a module's name as it is.

    Example:
        >>> settled("/home/me/my_rewards.py:score"), settled("package.module:score")
        ('/home/me/my_rewards.py:score', 'package.module:score')
    """
    place, _, name = text.rpartition(":")
    return f"{Path(place).expanduser().absolute()}:{name}" if place.endswith(".py") else text


def load_own(key: str, text: str) -> Any:
    """Load what a setting names, a function, a class or any other object.

    Args:
        key: the setting, for messages.
        text: `FILE.py:NAME`, the file from the working folder or the root; or `MODULE:NAME`, importable by this Python.

    Raises:
        OwnCodeError: there is no such file, module or name, or the code raises while it is imported.

    Example:
        >>> load_own("reward.functions.mine.path", "math:sqrt")(4.0)
        2.0
    """
    place, name = _split(key, text)
    module = _imported(key, text, place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise OwnCodeError(_has_no(f"{key}={text}", place, part, vars(found)))
        found = getattr(found, part)
    return found


def files_of(key: str, text: str) -> list[Path]:
    """Return the files that the named code consists of, its own first.

    The others are those that it imports from beside it, and files there that a text of its code names, as in
    `Path(__file__).with_name("prompt.txt")`.

    Raises:
        OwnCodeError: as `load_own`; nothing is executed but the packages above a module.
    """
    place, _ = _split(key, text)
    start = _file(key, text, place)
    root, package = _root(place, start)
    found: dict[Path, None] = {}
    waiting = [start, *(_module_files(root, place) if package else ())]
    while waiting:
        path = waiting.pop(0)
        if path in found:
            continue
        found[path] = None
        if path.suffix == ".py":
            waiting.extend(_imports_of(path, root, package))
            waiting.extend(_named_in(path, root))
    return list(found)


def check_own(key: str, text: str) -> None:
    """Check that the named code is there; nothing of it is executed.

    Raises:
        OwnCodeError: its file is not there, defines no such name, or is named by path and imports by a dot.
    """
    place, name = _split(key, text)
    path = _file(key, text, place)
    try:
        body = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise OwnCodeError(f"{key}={text}: {path} is no Python: {error.msg} in line {error.lineno}") from error
    if place.endswith(".py") and (line := next(_dotted_imports(body), None)) is not None:
        raise OwnCodeError(
            f"{key}={text}: line {line} imports by a dot, and a file that is named by its path is in no package; "
            "import what lies beside it without the dot, or name the module: PACKAGE.MODULE:NAME"
        )
    known, is_open = _names_in(body)
    first = name.partition(".")[0]
    if first not in known and not is_open:
        raise OwnCodeError(_has_no(f"{key}={text}", place, first, known))


def root_of(key: str, text: str) -> Path:
    """Return the folder from which the named code imports its own: that of the file, or of the topmost package.

    Raises:
        OwnCodeError: as `load_own`.
    """
    place, _ = _split(key, text)
    return _root(place, _file(key, text, place))[0]


def digest_of(key: str, text: str) -> str:
    """Return a digest of all `files_of` the named code, and of its name; it does not depend on where they lie.

    Raises:
        OwnCodeError: as `load_own`.
    """
    _, name = _split(key, text)
    digest = hashlib.blake2b(name.encode(), digest_size=16)
    for path in files_of(key, text):
        content = path.read_bytes()
        digest.update(f"\0{path.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def raised_by(code: Any, error: BaseException) -> str:
    """Return what a function of the user's raised, as one line with its own last line that was executed.

    Example:
        >>> raised_by(print, KeyError("answer"))
        "KeyError: 'answer'"
    """
    said = f"{type(error).__name__}: {error}".partition("\n")[0].removesuffix(": ")
    file = getattr(getattr(code, "__code__", None), "co_filename", None)
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if frame.filename == file), None)
    return f"{said} ({Path(frame.filename).name}, line {frame.lineno})" if frame else said


def _split(key: str, text: str) -> tuple[str, str]:
    place, _, name = text.rpartition(":")
    if not place or not _MODULE.fullmatch(name) or not (place.endswith(".py") or _MODULE.fullmatch(place)):
        raise OwnCodeError(f"{key}={text} names no code; write FILE.py:NAME or PACKAGE.MODULE:NAME")
    return place, name


def _file(key: str, text: str, place: str) -> Path:
    if place.endswith(".py"):
        path = Path(place).expanduser().absolute()
        if not path.is_file():
            beside = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
            near = nearest(path.name, beside)
            hint = f"did you mean {near}?" if near else "correct the path; it counts from the working folder"
            raise OwnCodeError(f"{key}={text}: {path} is no file; {hint}")
        return path
    try:
        spec = importlib.util.find_spec(place)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise _not_found(key, text, place)
    return Path(spec.origin)


def _root(place: str, start: Path) -> tuple[Path, str]:
    """Return the folder from which names are imported, and the topmost package of a module."""
    if place.endswith(".py"):
        return start.parent, ""
    depth = place.count(".") + (start.name == "__init__.py")
    return (start.parents[depth] if depth < len(start.parents) else start.parent), place.partition(".")[0]


def _imported(key: str, text: str, place: str) -> ModuleType:
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name and f"{place}.".startswith(f"{error.name}."):
                raise _not_found(key, text, place) from error
            raise OwnCodeError(_why(f"{key}={text}", place, error)) from error
    path = _file(key, text, place)
    # A name of its own, so that no file hides a module or another file of the same name; another after every change.
    files = files_of(key, text)
    content = hashlib.blake2b(str(path).encode(), digest_size=4)
    for other in files:
        content.update(hashlib.blake2b(other.read_bytes()).digest())
    name = f"own_{path.stem}_{content.hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    beside = {str(other) for other in files[1:]}
    for imported, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) in beside:
            del sys.modules[imported]  # perhaps of an earlier state of its file
    _forget_bytecode(file for file in files if file.suffix == ".py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # the file may import those beside it; last, so that it hides none of ours
    sys.modules[name] = module  # dataclasses and pickle look the module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise OwnCodeError(_why(f"{key}={text}", str(path), error)) from error
    return module


def _forget_bytecode(files: Iterable[Path]) -> None:
    """Delete the cached bytecode of files: Python takes it for current after a change of equal size in one second."""
    for file in files:
        with suppress(OSError):  # there is none, or the folder is read-only
            Path(importlib.util.cache_from_source(str(file))).unlink()


def _names_in(module: ast.Module) -> tuple[set[str], bool]:
    """Return the names that a module binds, in any block, and whether it may bind others that nobody can see.

    Names that are bound inside a function or class are not the module's, unless the function calls them global.
    """
    known: set[str] = set()
    is_open = False
    waiting: list[ast.AST] = [module]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            known.add(node.name)
            known.update(name for inner in ast.walk(node) if isinstance(inner, ast.Global) for name in inner.names)
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            known |= names
            is_open = is_open or "*" in names
    return known, is_open or bool({"globals", "__getattr__", "exec"} & {*known, *_called(module)})


def _dotted_imports(module: ast.Module) -> Iterator[int]:
    """Yield the lines of a module's own `from .x import y`; in a `try` or an `if` they may be meant to fail."""
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno


def _called(module: ast.Module) -> set[str]:
    return {node.func.id for node in ast.walk(module) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def _has_no(setting: str, place: str, name: str, known: Iterable[str]) -> str:
    near = nearest(name, [other for other in known if not other.startswith("_")])
    return f"{setting}: {place} has no {name}" + (f"; did you mean {near}?" if near else "")


def _not_found(key: str, text: str, place: str) -> OwnCodeError:
    return OwnCodeError(
        f"{key}={text}: {sys.executable} cannot import {place} from Python files; install the package there, set "
        "PYTHONPATH, or name the file: FILE.py:NAME"
    )


def _why(setting: str, place: str, error: Exception) -> str:
    """Return a message on code that raised while it was imported, with its own last line that was executed."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if frame.filename == place), frames[-1])
    where = f"{frame.filename}:{frame.lineno}"
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno}"
    relative = isinstance(error, ImportError) and "relative import" in str(error)
    remedy = "; name the module: PACKAGE.MODULE:NAME, with PYTHONPATH" if relative and place.endswith(".py") else ""
    return f"{setting}: {place} cannot be imported: {type(error).__name__} at {where}: {error}{remedy}"


def _imports_of(path: Path, root: Path, package: str) -> Iterator[Path]:
    """Yield the files below `root` that a file imports; of a package only its own."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return  # importing it will say what is wrong
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                folder = path.parents[node.level - 1]
                if not folder.is_relative_to(root):
                    continue
                base = ".".join((*folder.relative_to(root).parts, *filter(None, [base])))
            names = [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
        for name in names:
            if name and (not package or name.partition(".")[0] == package):
                yield from _module_files(root, name)


def _named_in(path: Path, root: Path) -> Iterator[Path]:
    """Yield the files beside a code file that it names as text; none unless it looks for them by `__file__`."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return
    nodes = list(ast.walk(tree))
    if not any(isinstance(node, ast.Name) and node.id == "__file__" for node in nodes):
        return
    for text in filter(None, map(_written_path, nodes)):
        named = path.parent / text
        if ".." not in named.parts and named.is_relative_to(root) and named.is_file():
            yield named


def _written_path(node: ast.AST) -> str:
    """Return the path that code writes as a text, as `x / "a" / "b"`, or as `join(x, "a", "b")`; empty for none."""
    parts: list[ast.expr] = []
    if isinstance(node, ast.Constant):
        parts = [node]
    elif isinstance(node, ast.Call):
        parts = [argument for argument in node.args if isinstance(argument, ast.Constant)]
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
        parts.insert(0, node.right)
        node = node.left
    text = "/".join(str(part.value) for part in parts if isinstance(part, ast.Constant))
    return text if "." in text and len(text) <= MAX_NAME and text.isprintable() and not text.startswith("/") else ""


def _module_files(root: Path, name: str) -> Iterator[Path]:
    """Yield the files that importing a module executes: those of the packages above it, and its own."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:length])
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.is_file():
                yield path
