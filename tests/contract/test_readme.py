"""What the documents promise is there: messages that they explain, settings in their commands, files, sections."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from orchestration.cli import compose

ROOT = Path(__file__).parents[2]
PACKAGES = ("conf", "docker", "learner", "orchestration", "rewards", "rollout")
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.md")),
]
VERBS = ("train", "plan", "check", "submit", "evaluate", "data build", "data look", "config", "report")
GPU_GIB = 79.1
"""Of an H100, as `mixed-r1 plan` counts it."""


def explained_messages() -> list[str]:
    """The first column of the table of messages; `...` stands for values."""
    text = (ROOT / "orchestration" / "train" / "README.md").read_text()
    section = text.split("## When something goes wrong")[1].split("\n## ")[0]
    return re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)


def strings_of_the_sources() -> str:
    texts = []
    for package in ("orchestration", "rollout", "rewards", "learner"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                    texts.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n".join(texts)


def commands() -> list[str]:
    """Every `mixed-r1 VERB key=value ...` in a code block of the documents, continued lines joined."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"```bash\n(.*?)```", document.read_text(), re.DOTALL):
            found += re.findall(r"^mixed-r1 .+$", block.replace("\\\n", " "), re.MULTILINE)
    return [line for line in found if line.removeprefix("mixed-r1 ").startswith(VERBS)]


def anchors(document: Path) -> set[str]:
    """The sections of a document, as GitHub names them in links."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table_rows(document: Path, first_cell: str) -> list[list[str]]:
    """The cells of each row whose first cell matches a pattern."""
    rows = [line.strip("|").split("|") for line in document.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if re.fullmatch(first_cell, row[0].strip())]


def test_every_message_that_the_documents_explain_is_one_of_ours() -> None:
    messages = explained_messages()
    sources = strings_of_the_sources()

    unknown = [message for message in messages if not all(part in sources for part in message.split("...") if part)]

    assert len(messages) > 15
    assert unknown == []


@pytest.mark.parametrize("command", sorted({shlex.join(shlex.split(line, comments=True)[1:]) for line in commands()}))
def test_a_command_of_the_documents_composes(command: str) -> None:
    words = shlex.split(command)
    own = {"checkpoint", "data", "preset", "out", "against", "num_completions", "pass_ks"}
    prefix = "evaluate." if words[0] == "evaluate" else ""
    overrides = [word for word in words[1:] if "=" in word or word.startswith("~")]

    compose(
        [prefix + word if prefix and word.split("=")[0] in own else word for word in overrides if "=..." not in word]
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_section(document: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert broken == []


def test_every_file_that_contributors_are_sent_to_exists() -> None:
    named = set(re.findall(r"`([\w/.]+/[\w.]*)`", (ROOT / "CONTRIBUTING.md").read_text()))
    assert len(named) > 15
    assert [name for name in sorted(named) if "NAME" not in name and not (ROOT / name).exists()] == []


def test_the_table_of_the_first_page_agrees_with_the_table_of_recipes() -> None:
    recipes = {row[0].strip("`"): row for row in table_rows(ROOT / "conf" / "README.md", r"`\w+/\w+`")}
    [head, *series] = table_rows(ROOT / "README.md", r"`(?:SERIES|(?:qwen|internvl)\w+)`")
    shown = {
        f"{name.strip('`')}_{size}/{machines.strip('`')}": ("adapters" if mark else "all weights", float(gib))
        for name, *cells in series
        for machines, cell in zip(head[1:], cells, strict=True)
        for size, mark, gib in re.findall(r"(\w+) (\*?)([\d.]+)", cell)
    }
    assert shown.keys() == recipes.keys()
    for name, (trained, gib) in shown.items():
        assert trained == recipes[name][4], name
        assert GPU_GIB - gib == pytest.approx(float(recipes[name][6]), abs=1.0), name
