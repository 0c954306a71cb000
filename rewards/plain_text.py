"""Plain text of a short answer: one spelling for what Unicode, LaTeX, Markdown and politeness write in many ways.

Callers cap the length first (a few hundred characters), so that the patterns below stay cheap.
"""

import re
import unicodedata

_SAME_CHARACTER = str.maketrans(
    {
        # Quotes, dashes and slashes that look alike are one character; zero-width ones are none.
        "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'", "\u2032": "'",
        "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u201f": '"', "\u2033": '"',
        "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\u2015": "-", "\u2212": "-",
        "\u3010": "[", "\u3011": "]", "\u300c": '"', "\u300d": '"',
        "\u2044": "/", "\u2215": "/", "\u3002": ".", "\u3001": ",",
        "\u200b": None, "\u200c": None, "\u200d": None, "\u2060": None, "\ufeff": None, "\u00ad": None,
        "\u200e": None, "\u200f": None,
    }
)  # fmt: skip
_SUPERSCRIPTS = re.compile("[\u207a\u207b]?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")
_GROUP_SPACE = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")
"""Spaces that typographers put between groups of three digits."""
_VULGAR_AFTER_DIGIT = re.compile("(?<=[0-9])(?=[\u00bc-\u00be\u2150-\u215f\u2189])")

_COMMAND = re.compile(
    r"\\(?:boxed|fbox|text|textbf|textit|textrm|texttt|mathrm|mathbf|mathit|mathsf|mbox|emph)\s*\{([^{}]*)\}"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([^{}]*?)\s*\}\s*\{\s*([^{}]*?)\s*\}")
_LATEX_SYMBOLS = (
    ("\\%", "%"), ("\\$", "$"), ("\\&", "&"), ("\\_", "_"), ("\\#", "#"), ("{,}", ","), ("\\times", "\u00d7"),
    ("\\cdot", "\u00d7"), ("^{\\circ}", "\u00b0"), ("^\\circ", "\u00b0"), ("\\approx", "\u2248"), ("\\,", " "),
    ("\\;", " "), ("\\!", ""), ("\\ ", " "),
)  # fmt: skip
_BOLD = re.compile(r"\*\*([^*]+)\*\*|__([^_]+)__")
_WRAPPERS = (
    ("```", "```"), ("`", "`"), ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("*", "*"),
    ("_", "_"), ('"', '"'), ("'", "'"), ("\u00ab", "\u00bb"),
)  # fmt: skip
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:"
    r"(?:(?:the|my|our)\s+)?(?:(?:final|correct|right|best|most\s+likely)\s+){0,3}(?:answers?|options?|choices?|result|ans)\b"
    r"\s*(?:(?:is|are|was|would\s+be|should\s+be|must\s+be)\b\s*:?|:|=)"
    r"|(?:it\s+is|it's|this\s+is)\b"
    r")\s*",
    re.IGNORECASE,
)
_MARKUP = frozenset("\\$*_`\"'\u00ab#{")
_FINAL_PUNCTUATION = " \t\r\n.,;:!?"
_ARTICLES = ("the ", "a ", "an ")


def unify(text: str) -> str:
    """Give the text in NFKC, with look-alike quotes and dashes unified and superscripts spelled as `^n`.

    Example:
        >>> unify("\uff22 \u2013 5\u00b2")
        'B - 5^2'
    """
    if text.isascii():
        return text
    text = _GROUP_SPACE.sub(",", _VULGAR_AFTER_DIGIT.sub(" ", text))
    text = _SUPERSCRIPTS.sub(lambda match: "^" + unicodedata.normalize("NFKC", match.group()), text)
    return unicodedata.normalize("NFKC", text).translate(_SAME_CHARACTER)


def unwrap(text: str) -> str:
    r"""Give the text without boxes, font commands, Markdown emphasis, code marks and surrounding quotes.

    Example:
        >>> unwrap(r"$\boxed{\text{B}}$")
        'B'
    """
    text = text.strip()
    if _MARKUP.isdisjoint(text):
        return text
    if "\\" in text or "{," in text:
        for _ in range(4):
            text, count = _COMMAND.subn(r"\1", text)
            if not count:
                break
        text = _FRACTION.sub(r"\1/\2", text)
        for command, plain in _LATEX_SYMBOLS:
            text = text.replace(command, plain)
    text = _BOLD.sub(lambda match: match.group(1) or match.group(2), text).lstrip("# ")
    for opening, closing in _WRAPPERS:
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)].strip()
    return text


def clean(text: str) -> str:
    """Give the unified, unwrapped text on one line, without lead phrase or final punctuation; case is kept.

    Example:
        >>> clean("The answer is **B**.")
        'B'
    """
    text = " ".join(unify(text).split()).replace(" %", "%")
    for _ in range(4):
        before = text
        text = unwrap(text)
        lead = _LEAD.match(text)
        if lead is not None:
            text = text[lead.end() :]
        text = text.rstrip(_FINAL_PUNCTUATION)
        if text == before:
            break
    return text


def normalise(text: str) -> str:
    """Give `clean(text)` case-folded: the form in which texts are compared.

    Example:
        >>> normalise('"Brazil."')
        'brazil'
    """
    return clean(text).casefold()


def without_article(text: str) -> str:
    """Give a normalised text without its leading article, unless nothing else would remain."""
    for article in _ARTICLES:
        if text.startswith(article):
            return text[len(article) :]
    return text
