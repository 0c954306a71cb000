"""Which commit of the project this process runs."""

import os
import subprocess
from pathlib import Path

COMMIT_FILE = Path(__file__).parents[1] / "COMMIT"
"""Written into the copy of the code that goes with a job."""


def project_commit() -> str | None:
    """Return the commit that the package's files belong to.

    None where there is no git, where the files lie in no work tree, and where the work tree around them does not track
    them, as one that holds a virtual environment: its commits are of something else.
    """
    if COMMIT_FILE.is_file():
        return COMMIT_FILE.read_text().strip()
    here = Path(__file__)
    # A hook of git's sets variables that would point at the hook's own repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    answers = []
    for question in (["ls-files", "--error-unmatch", here.name], ["rev-parse", "HEAD"]):
        try:
            done = subprocess.run(
                ["git", *question], capture_output=True, text=True, check=False, cwd=here.parent, env=environment
            )
        except OSError:
            return None
        if done.returncode != 0:
            return None
        answers.append(done.stdout.strip())
    return answers[-1]
