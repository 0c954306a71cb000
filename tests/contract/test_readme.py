"""What the READMEs promise is there: messages that they explain, and settings in the commands that they give."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from orchestration.cli import compose

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "conf" / "README.md", ROOT / "docker" / "README.md"]
ROOMS = ("orchestration", "rollout", "rewards", "learner")
VERBS = ("train", "plan", "check", "submit", "evaluate", "data build", "config", "report")


def explained_messages() -> list[str]:
    """The first column of the table of failures; `...` stands for values."""
    section = (ROOT / "README.md").read_text().split("## When something goes wrong")[1].split("\n## ")[0]
    return re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)


def strings_of_the_sources() -> str:
    texts = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                    texts.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n".join(texts)


def commands() -> list[str]:
    """Every `mixed-r1 VERB key=value ...` in a code block of the READMEs, continued lines joined."""
    found = []
    for readme in READMES:
        if readme.is_file():
            for block in re.findall(r"```bash\n(.*?)```", readme.read_text(), re.DOTALL):
                found += re.findall(r"^mixed-r1 .+$", block.replace("\\\n", " "), re.MULTILINE)
    return [line for line in found if line.removeprefix("mixed-r1 ").startswith(VERBS)]


def test_every_message_that_the_readme_explains_is_one_of_ours() -> None:
    messages = explained_messages()
    sources = strings_of_the_sources()

    unknown = [message for message in messages if not all(part in sources for part in message.split("...") if part)]

    assert len(messages) > 15
    assert unknown == []


@pytest.mark.parametrize("command", sorted({shlex.join(shlex.split(line, comments=True)[1:]) for line in commands()}))
def test_a_command_of_the_readmes_composes(command: str) -> None:
    words = shlex.split(command)
    own = {"checkpoint", "data", "preset", "out", "against", "num_completions", "pass_ks"}
    prefix = "evaluate." if words[0] == "evaluate" else ""
    overrides = [word for word in words[1:] if "=" in word or word.startswith("~")]

    compose([prefix + word if prefix and word.split("=")[0] in own else word for word in overrides])
