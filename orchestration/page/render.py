"""HTML pages from the templates of this package; all text but Markup is escaped."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

MAX_CHARS = 4000


def render(template: str, **values: object) -> str:
    """Return a whole page.

    Args:
        template: File name in `templates`; it extends base.html, which needs `title`.
        values: What the template names.
    """
    return _environment().get_template(template).render(values)


def cut(text: str) -> str:
    """Cut a long text to `MAX_CHARS` and state its length."""
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} ... ({len(text)} characters)"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cut"] = cut
    return environment
