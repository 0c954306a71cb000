"""Object storage in memory: objects appear whole when they are closed; nothing is renamed, copied or appended."""

import errno
import io

import pyarrow as pa
from pyarrow import fs


class CutShortError(BaseException):
    """Stands for the death of the writing process."""


class MemoryHandler(fs.FileSystemHandler):
    """Objects by path. Folders are what paths have in common."""

    def __init__(self, *, capacity: int | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.capacity = capacity
        self.num_operations = 0
        self.dies_at: int | None = None

    def _count(self) -> None:
        self.num_operations += 1
        if self.dies_at is not None and self.num_operations >= self.dies_at:
            raise CutShortError

    def _close(self, path: str, data: bytes) -> None:
        self._count()
        others = sum(len(content) for name, content in self.objects.items() if name != path)
        if self.capacity is not None and others + len(data) > self.capacity:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.objects[path] = data

    def get_type_name(self) -> str:
        return "memory"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> fs.FileInfo:
        if path in self.objects:
            return fs.FileInfo(path, fs.FileType.File, size=len(self.objects[path]))
        is_folder = any(name.startswith(f"{path}/") for name in self.objects)
        return fs.FileInfo(path, fs.FileType.Directory if is_folder else fs.FileType.NotFound)

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        below = [name.removeprefix(f"{selector.base_dir}/") for name in self.objects]
        below = [name for name in below if f"{selector.base_dir}/{name}" in self.objects]
        folders = {name.rpartition("/")[0] for name in below if "/" in name}
        if not selector.recursive:
            folders = {name.partition("/")[0] for name in below if "/" in name}
            below = [name for name in below if "/" not in name]
        return [self._info(f"{selector.base_dir}/{name}") for name in sorted({*below, *folders})]

    def create_dir(self, path: str, recursive: bool) -> None:
        """There are no folders to create."""

    def delete_dir(self, path: str) -> None:
        for name in [name for name in self.objects if name.startswith(f"{path}/")]:
            self._count()
            del self.objects[name]

    def delete_file(self, path: str) -> None:
        self._count()
        del self.objects[path]

    def open_input_stream(self, path: str) -> pa.NativeFile:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return pa.PythonFile(io.BytesIO(self.objects[path]), mode="r")

    def open_input_file(self, path: str) -> pa.NativeFile:
        return self.open_input_stream(path)

    def open_output_stream(self, path: str, metadata: object) -> pa.NativeFile:
        self._count()
        return pa.PythonFile(_Object(self, path), mode="w")

    def open_append_stream(self, path: str, metadata: object) -> pa.NativeFile:
        raise NotImplementedError("objects cannot be appended to")

    def move(self, src: str, dest: str) -> None:
        raise NotImplementedError("objects cannot be renamed")

    def copy_file(self, src: str, dest: str) -> None:
        raise NotImplementedError("not asked for here")

    def delete_dir_contents(self, path: str, missing_dir_ok: bool) -> None:
        raise NotImplementedError("not asked for here")

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("not asked for here")


class _Object(io.BytesIO):
    """What is being written; it becomes an object when it is closed."""

    def __init__(self, handler: MemoryHandler, path: str) -> None:
        super().__init__()
        self._handler = handler
        self._path = path

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._handler._close(self._path, data)
