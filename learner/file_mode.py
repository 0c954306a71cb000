"""The mode of files that a library wrote: that of any other file. No torch, so that the driver may import this.

safetensors writes to a temporary file and renames it, and a temporary file is readable by its owner alone.
"""

from pathlib import Path


def give_usual_modes(folder: Path) -> None:
    """Set the mode of all files below a folder to that of a new file, as the umask or the folder's default ACL has it.

    A new file tells, because the umask itself can only be read by changing it, for all threads of the process.
    """
    probe = folder / ".mode"
    probe.touch(exist_ok=False)
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)
