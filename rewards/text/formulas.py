"""Formulas as answers spell them, read as LaTeX: boxes, lead phrases, units, roots, powers, decimals that go on."""

import re
import unicodedata
from dataclasses import dataclass, replace
from fractions import Fraction

from rewards.core.base import Reason
from rewards.text.currencies import SIGN
from rewards.text.declaration import declared
from rewards.text.formula_words import in_signs, is_rejected, named_values
from rewards.text.number_answers import states_number
from rewards.text.number_bounds import BOUND
from rewards.text.number_words import from_chinese, in_digits, number_word, part_in_digits
from rewards.text.plain_text import unify
from rewards.text.units import Unit, named_unit, split_unit

_LEAD = re.compile(
    # So; right, final; answer; is.
    r"(?:(?:\u56e0\u6b64|\u6240\u4ee5|\u6545|\u7efc\u4e0a)\s*,?\s*)?(?:\u6b63\u786e|\u6700\u7ec8)?\u7684?\u7b54\u6848"
    r"\s*(?:\u662f|\u4e3a|:|=)\s*:?\s*|"
    r"(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:the\s+|my\s+|our\s+)?(?:final\s+|correct\s+|right\s+)?(?:answer|result)\s*"
    r"(?:is|equals|:|=|\n)\s*:?\s*|(?:(?:so|thus|hence|therefore|then|finally|and)\b[,:]?\s+)?(?:(?:we\s+(?:get|have|find|obtain)|solving|giving|which\s+gives)\b[,:]?\s+)?"
    r"(?=[A-Za-z]\w?\s*=)|\\therefore(?![A-Za-z])\s*|(?:we\s+(?:get|have|find|obtain)|it\s+(?:is|equals))\s+(?=[-+($\\0-9])|(?:so|thus|hence|therefore|then|finally)\b[,:]?\s+(?=[-+($\\0-9])",
    re.IGNORECASE,
)
_ABOUT = re.compile(r"(?:\\approx|\u2248|~|\b(?:about|approximately|around|roughly)\b)\s*", re.IGNORECASE)
_DOLLARS = (("$$", "$$"), ("\\(", "\\)"), ("\\[", "\\]"), ("$", "$"), ("**", "**"), ("`", "`"))
_BOLD = re.compile(r"(?<![^\s(\[:=$])\*\*(?=\S)([^*]+)(?<=\S)\*\*(?![A-Za-z0-9(])")
_STYLE = re.compile(
    r"^#{1,6}\s+|</?(?:b|i|em|strong|u|span|p|div)>|\\(?:textcolor|color)\s*\{[^{}]*\}|\\(?:bf|rm|it|large|Large)(?![A-Za-z])"
    r"|\s*[\u2713\u2714\u2705]\ufe0f?\s*$"
)
"""What only shows how a text looks: headings, tags, colours, ticks."""
_ONE_TOKEN_BOX = re.compile(r"\\boxed\s+([^\s{}\\]+)(?=\$?\.?$)")
_SOLE_GROUP = re.compile(r"^\{([^{},|:]*)\}$")
_TOWER = re.compile(
    r"\^\s*(?:\{[^{}^]{0,64}\^|[-+(]*(?:[0-9]{1,8}|[A-Za-z])\s*\^|\{?\s*[-+]?[0-9]{5})"
    r"|[!)}]\s*!|[0-9]{4}\s*!|binom\s*\{\s*[0-9]{4}"
)
"""Powers of powers, exponents and factorials that would fill memory before any clock rings."""
HEDGE = re.compile(r"\bor\b|\\lor\b|\\vee\b|\u6216|(?<!_)[0-9]\s+[0-9]", re.IGNORECASE)
_LAST_CLAUSE = re.compile(r"[.,;:]\s|\b(?:so|thus|hence|therefore)\b", re.IGNORECASE)
_FONT = re.compile(
    r"\\(?:text|mbox|mathrm|mathbf|mathit|textbf|textit|textrm|boldsymbol|bm|operatorname|underline)\s*\{([^{}]*)\}"
)
_LOOSE = re.compile(r"(\\(?:left|right))\s+(?=[(){}\[\]|\\])|\\(?:mathrm|mathbf|mathit|boldsymbol|bm)\s*(?=\\[A-Za-z])")
r"""`\left (`, which is `\left(`; a font without braces, as in `\mathrm \pi`."""
_NUMBER_COMMAND = re.compile(r"\\num(?:ber)?\s*\{([^{}]*)\}")
_DISPLAYED = re.compile(r"\$\$([^$,;=]{1,64})\$\$")
_NUMBER_LINES = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:\s*\n\s*[-+]?[0-9]+(?:\.[0-9]+)?)+")
_SIDE_BY_SIDE = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:\s+[-+]?[0-9]+(?:\.[0-9]+)?)+")
_DIGIT_GROUPS = re.compile(r"[-+]?[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?")
_SPACING = re.compile(r"(?<!\\)\\[,;:! ]|\\q?quad\b|~|\{\}")
_GROUPED = re.compile(
    r"(?<=[0-9])(?:\{,\}|\\[,! ]|\\ )(?=[0-9]{3}(?![0-9]))|(?<=[0-9]),(?=[0-9]{3}\s*(?:\\?pi|\u03c0|\\sqrt|\u221a))"
)
_PLAIN_POWER = re.compile(
    r"\^\s*(?:\(\s*([-+]?[0-9]{1,8}(?:/[0-9]{1,8})?)\s*\)|\{?([-+]?[0-9]{1,8}\.[0-9]{1,8})\s*\}?|([-+]?[0-9]{2,8}|[-+][0-9]))"
)
_ROOT = re.compile(r"\\?(?<![A-Za-z])sqrt(?![A-Za-z])|(?<=[0-9A-Za-z)}])sqrt(?![A-Za-z])|\u221a|\u221b")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_QUOTIENT_OF_ROOT = re.compile(
    r"(?<![0-9.,/^{])([0-9]{1,9})/([0-9]{1,9})\s+(?=\\?sqrt|\u221a|\\?pi(?![A-Za-z])|\u03c0)"
)
"""`1/2 sqrt(3)`, with a blank, is half of the root."""
_ELLIPSIS = re.compile(r"(?<![0-9.])([0-9]{0,9}\.)([0-9]{2,18})\s*(?:\.{3}|\u2026|\\(?:l|c)?dots)")
_ALL_WORDS = re.compile(r"[A-Za-z]+(?:[\s-]+[A-Za-z]+)+|[Hh]alf")
_SIGNS = (
    ("\u00ba", "\u00b0"), ("\u02da", "\u00b0"), ("\u2236", ":"), ("\u00b3\u221a", "\u221b"), ("\u211d", "\\mathbb{R}"),
    ("\u2208", "\\in "), ("\u222a", "\\cup "), ("\u2205", "\\emptyset "), ("\u2234", ""),
)  # fmt: skip
"""Those that NFKC would make another of, or nothing that is read."""
_SUBSCRIPTS = re.compile("[\u2080-\u2089]+")
_REASON = re.compile(
    r"(?<=[0-9)}$])(?:\s+\((?:by|using|from|since|because|approximately|approx\.?)\b[^()0-9]*\)"
    r"|,?\s+(?:since|because)\s(?!.*\b(?:not|no|cannot|wrong|may|might|could|unknown|guess)\b)[^0-9=]+)$",
    re.IGNORECASE,
)
"""`5 (by Pythagoras)`, `5, since it is isosceles`; a reason with a number or a doubt is read."""
_PERIOD = re.compile(r"([0-9]*?)([0-9]{1,9}?)\2+")
"""`0.1666...` goes on with what it repeats at its end."""
_REPEATING = re.compile(r"([0-9]{0,9})\.([0-9]{0,9})\\(?:overline|dot|bar)\s*\{([0-9]{1,9})\}")
_TIMES_TEN = re.compile(r"(?<=[0-9])\s*[xX]\s*(?=10\s*\^)")
_SCALES = {
    "hundred": "10^{2}", "thousand": "10^{3}", "million": "10^{6}", "billion": "10^{9}", "trillion": "10^{12}",
    "lakh": "10^{5}", "crore": "10^{7}", "dozen": "12", "ten": "10", "pair": "2", "score": "20",
}  # fmt: skip
_SCALE = re.compile(rf"(?<=[0-9}}])\s*\b({'|'.join(_SCALES)})s?\b", re.IGNORECASE)
_PARTS = ("half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_MADE_OF = {
    **{f"{name}{plural}": f"\\frac{{#}}{{{size}}}" for size, name in enumerate(_PARTS, 2) for plural in ("", "s")},
    "halves": "\\frac{#}{2}", "fourths": "\\frac{#}{4}", "hundredths": "\\frac{#}{100}",
    "thousandths": "\\frac{#}{1000}",
    "squared": "(#)^{2}", "cubed": "(#)^{3}", "factorial": "#!", "doubled": "2\\cdot(#)", "tripled": "3\\cdot(#)",
    "halved": "\\frac{#}{2}",
}  # fmt: skip
_MADE = re.compile(rf"(-?[0-9]+(?:\.[0-9]+)?)\s+({'|'.join(_MADE_OF)})")
"""`3 halves`, `5 squared`."""
_SIGN_WORD = re.compile(r"^(?:minus|negative)\s+(?=[0-9.\\(]|infinity)", re.IGNORECASE)
_COEFFICIENT = re.compile(r"(?<![0-9.,/^{}A-Za-z])([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*(?=[A-Za-z](?![A-Za-z]))")
"""`1/2x` is half of x."""
_IMAGINARY = re.compile(r"(?<=[0-9)}])\s*(?:\*|\\cdot(?![A-Za-z]))?\s*i(?![A-Za-z])")
_OHM = re.compile(r"(?<=[0-9}])\s*(k|M)?\s*\\Omega(?![A-Za-z])")
_MICRO = re.compile(r"(?<=[0-9}])\s*\\mu\s+(?=(?:m|s|g|A|V|F|C|W|L|l|mol)\b)")
_INDEX = re.compile(r"_\s*\{\s*(\w)\s*\}")
_PLAIN_SET = re.compile(r"\{[^{}]*,[^{}]*\}")
TUPLE = re.compile(r"(?:\\left)?[(\[][^()\[\]]*,[^()\[\]]*(?:\\right)?[)\]]")
_MINUTE = r"(?:'|\^\s*(?:\{\s*)?\\prime(?:\s*\})?)"
_DEGREES_MINUTES = re.compile(
    rf"(-?[0-9]{{1,9}})\u00b0\s*([0-9]{{1,2}}(?:\.[0-9]{{1,9}})?)\s*{_MINUTE}(?:\s*([0-9]{{1,2}}(?:\.[0-9]{{1,9}})?)\s*(?:{_MINUTE}{{2}}|\"))?"
)
_PRIME = re.compile(r"[0-9.]+'{1,2}")
"""Feet or minutes of arc; the text does not decide."""
_MIXED = re.compile(r"(?<![0-9.,/^{])([0-9]{1,9})\s+([0-9]{1,9})\s*/\s*([0-9]{1,9})(?![0-9.,/])")
DEGREES = re.compile(r"(?:\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![A-Za-z])|\\degree(?![A-Za-z]))")
_PERCENT_WORD = re.compile(r"(?<=[0-9}])\s*\b(?:percent(?:age)?|per\s+cent|pct)\b|(?<=[0-9}])\s*\uff05", re.IGNORECASE)
_EXPONENT = re.compile(r"([0-9.])[eE]([-+]?[0-9]{1,3})(?![0-9A-Za-z])")
_CLOCK = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9])(?::([0-5][0-9]))?(?:\s*([ap])\.?\s?m\.?)?", re.IGNORECASE)
_RATIO = re.compile(r"[^:=,<>]{1,40}(?::[^:=,<>]{1,40}){1,3}")
_WORDS = re.compile(r"\\(?:begin|end)\s*\{[A-Za-z*]+\}|\\[A-Za-z]+|[A-Za-z]+")
_PROSE = re.compile(r"(?:\\text\{[^{}]*\}|(?<![\\A-Za-z{])[A-Za-z]{2,})\s+(?:\\text\{|[A-Za-z]{2,})")
_WORD = re.compile(r"[^\W\d_]{2,40}(?:[-'][^\W\d_]{1,40})*")
_SHORT_WORD = re.compile(
    "no|on|so|is|it|in|at|as|an|am|be|by|do|go|he|hi|if|me|my|of|or|to|up|us|we|ox|oh|ok|ma|pa", re.IGNORECASE
)
"""Two letters that are a word; any other two are a product."""
_FUNCTION = re.compile("sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|exp|lim|max|min|gcd|lcm|det")
_GREEK = re.compile(
    "alpha|beta|[Gg]amma|[Dd]elta|epsilon|zeta|eta|[Tt]heta|[Ll]ambda|mu|nu|[Xx]i|[Pp]i|rho|[Ss]igma|tau|[Pp]hi|chi"
    "|[Pp]si|[Oo]mega"
)
_NAMED = {"inf": "\\infty ", "infinity": "\\infty ", "degrees": "^\\circ ", "degree": "^\\circ "}
_SYMBOLS = (
    ("\u03c0", "\\pi "), ("\u00d7", "\\times "), ("\u00b7", "\\cdot "), ("\u22c5", "\\cdot "), ("\u00f7", "\\div "),
    ("\u221e", "\\infty "), ("\u2220", "\\angle "), ("\u25b3", "\\triangle "), ("\u03b1", "\\alpha "),
    ("\u03b2", "\\beta "), ("\u03b8", "\\theta "), ("\u2264", "\\leq "), ("\u2265", "\\geq "),
    ("\\lg ", "\\log_{10} "),
)  # fmt: skip
_CURRENCY = re.compile(
    rf"^(?P<before>\s*[-+]?)\s*(?:\\?(?P<front>{SIGN}))\s*(?=[0-9.])|(?<=[0-9])\s*\\?(?P<behind>{SIGN})\s*$"
)


@dataclass(frozen=True, slots=True)
class Formula:
    """An answer or a reference as it was read."""

    latex: str
    """Without unit; the text itself where it is a word."""
    unit: Unit | None
    is_word: bool
    """A word or a time of day, which is equal to itself alone: never a product of letters or a quotient."""
    spelled: str
    """For a reader."""
    is_repeating: bool = False
    """Written as a decimal that never ends, which no decimal that ends is equal to."""
    names: tuple[str, ...] = ()
    """Those of the values of a tuple or set: of `y = 3, x = 2`."""


def read_formula(text: str, max_chars: int) -> tuple[Formula | None, Reason]:
    """Return the one formula of an answer, without box, dollars, lead phrase and unit; or None and why."""
    if len(text) > max_chars:
        return None, Reason.TOO_LONG
    for sign, spelled in () if text.isascii() else _SIGNS:
        text = text.replace(sign, spelled)
    text = _SUBSCRIPTS.sub(lambda index: f"_{{{unicodedata.normalize('NFKC', index[0])}}}", text)
    text = _several_as_one(_NUMBER_COMMAND.sub(r"\1", _LOOSE.sub(r"\1", text)))
    if _SIDE_BY_SIDE.fullmatch(text.strip()) and _DIGIT_GROUPS.fullmatch(text.strip()) is None:
        return None, Reason.AMBIGUOUS
    text = unify(_GROUPED.sub("", _VULGAR.sub(_fraction, _ELLIPSIS.sub(_going_on, text)))).strip()
    text = _ONE_TOKEN_BOX.sub(r"\\boxed{\1}", _BOLD.sub(r"\1", _STYLE.sub("", text)).strip())
    if text.count("\\boxed") > 1:
        return None, Reason.AMBIGUOUS
    text = _bare(text)
    if "\\boxed" in text:
        boxed = _box_in_sentence(text)
        if boxed is None:
            return None, Reason.AMBIGUOUS
        text = _bare(boxed)
    declaration = None if text.startswith("\\") or "\\text" in text else declared(text)
    if declaration is not None and HEDGE.search(text) is None and _is_sentence(declaration.before):
        if states_number(declaration.before.casefold()):
            return None, Reason.AMBIGUOUS
        if is_rejected(_LAST_CLAUSE.split(declaration.before)[-1]):
            return None, Reason.UNREADABLE
        text = _bare(declaration.value)
    if is_rejected(text):
        return None, Reason.UNREADABLE
    text = _REASON.sub("", text)
    if _ALL_WORDS.fullmatch(text):
        words = text.casefold()
        digits = in_digits(part_in_digits(words))
        text = digits if digits != words else text
    text = in_signs(_ABOUT.sub("", text, count=1) if _ABOUT.match(text) else text)
    if not text or "**" in text or _TOWER.search(text):
        return None, Reason.UNREADABLE
    names, text = named_values(text)
    formula, reason = _formula(text)
    return (None if formula is None else replace(formula, names=names)), reason


def _several_as_one(text: str) -> str:
    r"""Return values that K12 writes in displays or lines of their own, behind each other, as one list with commas.

    Example:
        >>> _several_as_one("$$1$$ $$-1$$"), _several_as_one("96\n376"), _several_as_one("$$7$$")
        ('1, -1', '96, 376', '$$7$$')
    """
    if text.count("$$") > 2 and not _DISPLAYED.sub("", text).strip(" \t\n,;"):
        return ", ".join(value.strip() for value in _DISPLAYED.findall(text))
    return ", ".join(text.split()) if _NUMBER_LINES.fullmatch(text.strip()) else text


def _bare(text: str) -> str:
    """Return the text without what surrounds a formula: a lead phrase, a box, dollars, a full stop."""
    for _ in range(4):
        before = text
        text = from_chinese(_LEAD.sub("", text.strip(), count=1).strip().rstrip(" .,;:"))
        text = _without_box(_SOLE_GROUP.sub(r"\1", text))
        for opening, closing in _DOLLARS:
            if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
                inner = text[len(opening) : -len(closing)].strip()
                text = text if opening in inner else inner
        if text == before:
            break
    return text


def _is_sentence(text: str) -> bool:
    """Return whether a text before `is` or `=` is prose, not the side of an equation; numbers in it may be rivals."""
    words = re.findall(r"[A-Za-z]{2,}", text)
    return len(words) >= 2 and not any(char in text for char in "=^\\")


def _formula(text: str) -> tuple[Formula | None, Reason]:
    """Return the formula that a text without its surroundings spells."""
    for _ in range(3):
        text = _FONT.sub(r" \1 ", text)
    for symbol, command in _SYMBOLS:
        text = text.replace(symbol, command)
    text = _SPACING.sub(" ", DEGREES.sub("\u00b0", text)).strip()
    currency = _CURRENCY.search(text)
    if currency is not None:
        text = text[: currency.start()] + (currency["before"] or "") + text[currency.end() :]
    text = _IMAGINARY.sub("i", _SIGN_WORD.sub("-", _MICRO.sub(" \u03bc", _OHM.sub(" \\1\u03a9", text))))
    made = _MADE.fullmatch(text)
    text = _MADE_OF[made[2]].replace("#", made[1]) if made is not None else text
    text = _PERCENT_WORD.sub(r"\\%", text)
    is_repeating = _REPEATING.search(text) is not None
    text = _REPEATING.sub(_repeating, _QUOTIENT_OF_ROOT.sub(r"\\frac{\1}{\2}", _TIMES_TEN.sub(r"\\times ", text)))
    text = _SCALE.sub(lambda match: f"\\times {_SCALES[match[1].casefold()]} ", text)
    if _PLAIN_SET.fullmatch(text):
        text = f"\\{text[:-1]}\\}}"
    if _WORD.fullmatch(text) and (len(text) > 2 or _SHORT_WORD.fullmatch(text)):
        name = text.casefold()
        if name not in _NAMED and _GREEK.fullmatch(text) is None:
            number = number_word(name)
            return Formula(str(number) if number is not None else name, None, number is None, text), Reason.OK
    if BOUND.search(text.casefold()):
        return None, Reason.UNREADABLE
    text = re.sub(r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi ", text)
    has_functions = _FUNCTION.search(text) is not None
    value, unit = (text, None) if has_functions and "\u00b0" in text else split_unit(text.strip())
    if unit is None and currency is not None:
        unit = named_unit(currency["front"] or currency["behind"])
    if _PRIME.fullmatch(value):
        value, unit = value.rstrip("'"), Unit((("foot or minute", 1),), Fraction(1))
    arc = _DEGREES_MINUTES.fullmatch(value.strip("()"))
    if arc is not None:
        minutes = Fraction(arc[2]) / 60 + Fraction(arc[3] or 0) / 3600
        degrees = Fraction(arc[1]) + (-minutes if arc[1].startswith("-") else minutes)
        return Formula(
            f"\\frac{{{degrees.numerator}}}{{{degrees.denominator}}}", named_unit("\u00b0"), False, value
        ), Reason.OK
    clock = _CLOCK.fullmatch(value)
    if clock is not None:
        half = Unit(((f"{clock[4].casefold()}m", 1),), Fraction(1)) if clock[4] else unit
        time = ":".join(filter(None, clock.groups()[:3])).lstrip("0")
        return Formula(f"\\text{{time {time}}}", half, True, time), Reason.OK
    value = _COEFFICIENT.sub(r"\\frac{\1}{\2}", value)
    latex = _roots(_MIXED.sub(r"\1\\frac{\2}{\3}", value))
    if latex is None:
        return None, Reason.UNREADABLE
    latex = _PLAIN_POWER.sub(lambda match: f"^{{{match[1] or _whole_quotient(match[2] or match[3])}}}", latex)
    latex = _INDEX.sub(r"_\1", latex)
    latex = _WORDS.sub(_command, _EXPONENT.sub(r"\1\\times 10^{\2}", latex.replace("*", "\\cdot ")))
    if _PROSE.search(latex):
        return None, Reason.UNREADABLE
    if "\u00b0" in latex:
        latex = latex.replace("\u00b0", "\\cdot\\frac{\\pi}{180}" if has_functions else " ")
    latex = " ".join(latex.split())
    if _RATIO.fullmatch(latex):
        parts = [part.strip() for part in latex.split(":")]
        latex = (
            f"\\frac{{{parts[0]}}}{{{parts[1]}}}"
            if len(parts) == 2
            else ",".join(
                f"{name}=\\frac{{{part}}}{{{parts[-1]}}}"
                for name, part in zip("uvw"[: len(parts) - 1], parts[:-1], strict=True)
            )
        )
    return Formula(latex, unit, False, value, is_repeating), Reason.OK


def _command(match: re.Match[str]) -> str:
    """Return what a run of letters is in LaTeX: a command, one name, or letters of algebra."""
    run = match.group()
    if run.startswith("\\") or len(run) == 1 or run == "and":
        return run
    if _GREEK.fullmatch(run) or _FUNCTION.fullmatch(run):
        return f"\\{run} "
    if run.casefold() in _NAMED:
        return _NAMED[run.casefold()]
    return f"\\text{{{min(run, run[::-1]) if run.isupper() else run}}}" if len(run) > 2 else run


def _roots(text: str) -> str | None:
    """Return the text with every root as LaTeX writes it; None where a root has no readable radicand."""
    parts: list[str] = []
    while (match := _ROOT.search(text)) is not None:
        parts.append(text[: match.start()])
        rest = text[match.end() :].lstrip()
        index = "[3]" if match.group() == "\u221b" else ""
        if rest.startswith("[") and "]" in rest:
            index, rest = rest[: rest.index("]") + 1], rest[rest.index("]") + 1 :].lstrip()
        if rest[:1] in ("(", "{"):
            end = _closing(rest)
            if end is None:
                return None
            body, rest = rest[1:end], rest[end + 1 :]
            inner = _roots(body)
            if inner is None:
                return None
        else:
            plain = re.match(r"[0-9]+(?:\.[0-9]+)?|\\[A-Za-z]+|[A-Za-z]", rest)
            if plain is None or (match.group() == "\\sqrt" and plain.group()[:1] == "\\"):
                return None
            length = 1 if match.group() == "\\sqrt" else plain.end()
            inner, rest = rest[:length], rest[length:]
        parts.append(f"\\sqrt{index}{{{inner}}}")
        text = rest
    return "".join(parts) + text


def _closing(text: str) -> int | None:
    """Return where the bracket that opens a text is closed."""
    depth = 0
    for at, char in enumerate(text):
        depth += (char in "({") - (char in ")}")
        if depth == 0:
            return at
    return None


def _without_box(text: str) -> str:
    r"""Return the content of `\boxed{..}` if the text is exactly one box, else the text."""
    if text.startswith("\\boxed{") and _closing(text[len("\\boxed") :]) == len(text) - len("\\boxed") - 1:
        return text[len("\\boxed{") : -1].strip()
    return text


def _box_in_sentence(text: str) -> str | None:
    r"""Return the content of the only box of a sentence; None where it is part of a formula or has a rival behind it.

    Example:
        >>> _box_in_sentence(r"The lines divide it into $\boxed{8}$ parts."), _box_in_sentence(r"\boxed{4} or 5")
        ('8', None)
    """
    before, _, behind = text.partition("\\boxed")
    end = _closing(behind) if behind.startswith("{") else None
    if end is None:
        return None
    content, after = behind[1:end].strip(), behind[end + 1 :]
    is_apart = before[-1:] in ("", "$", "=", ":", "(") or before[-1:].isspace()
    clause = re.split(r"[.;!?]\s", before)[-1]
    rivals = set(re.findall(r"[0-9]+(?:\.[0-9]+)?", after)) - set(re.findall(r"[0-9]+(?:\.[0-9]+)?", content))
    if (
        not is_apart
        or after[:1] in tuple("+*/^!{_-")
        or rivals
        or HEDGE.search(after)
        or BOUND.search(clause.casefold())
    ):
        return None
    return content


def _fraction(match: re.Match[str]) -> str:
    """Return a vulgar fraction in LaTeX."""
    top, _, bottom = unicodedata.normalize("NFKC", match.group()).partition("\u2044")
    return f"\\frac{{{top}}}{{{bottom}}}"


def _whole_quotient(number: str) -> str:
    """Return an exponent such as 0.5 as 1/2, which is compared exactly."""
    return str(Fraction(number)) if "." in number else number


def _going_on(match: re.Match[str]) -> str:
    """Return a decimal that ends in dots with its period under a line; one that repeats nothing stays as it is."""
    period = _PERIOD.fullmatch(match[2])
    return match[0] if period is None else f"{match[1]}{period[1]}\\overline{{{period[2]}}}"


def _repeating(match: re.Match[str]) -> str:
    """Return a repeating decimal as the fraction that it is: 0.1666.. is (16 - 1) / 90."""
    whole, plain, period = match.groups()
    digits = int(whole + plain + period) - int(whole + plain or "0")
    return f"\\frac{{{digits}}}{{{'9' * len(period)}{'0' * len(plain)}}}"
