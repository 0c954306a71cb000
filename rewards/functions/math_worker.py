"""The math grader's own process: JSON questions on stdin, JSON verdicts on stdout. Run as a script, never imported.

It imports nothing of this repository. The limit of a question is CPU time, so that no answer depends on the load of
the machine. A timer without a handler ends the process, even where its parent has died meanwhile.
"""

import json
import logging
import math
import os
import signal
import sys
from typing import Any

RELATIVE_TOLERANCE = 2e-6
"""For numbers with six decimals, such as 0.333333 for a third."""


def main() -> None:
    """Answer questions until stdin closes."""
    # Verdicts need a stdout of their own: whatever a library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    import sympy
    from math_verify import verify
    from math_verify.grader import is_expr_of_only_symbols, should_treat_as_complex
    from math_verify.parser import NormalizationConfig, latex2sympy, normalize_latex
    from sympy.core.relational import Relational

    # Units are the parent's, and a box is open by now; the extraction of math-verify, which reads what it can of a
    # text and drops the rest, is not used: what its parser does not read whole is not read.
    spelling = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )

    def read(expression: str) -> Any:
        normalised = normalize_latex(expression, spelling)
        try:
            formula = latex2sympy(
                normalised, is_real=not should_treat_as_complex(normalised), normalization_config=None
            )
        except Exception:
            return None
        return None if formula.has(sympy.nan, sympy.zoo) else formula

    def sides(formula: Any) -> list[Any] | None:
        """Return the sides of an equation or of a chain of them; None for anything else."""
        relations = formula.args if type(formula).__name__ == "And" else (formula,)
        if not all(isinstance(relation, sympy.Eq) for relation in relations):
            return None
        return list(dict.fromkeys(side for relation in relations for side in (relation.lhs, relation.rhs)))

    def equal(gold: Any, reply: Any) -> bool:
        parts = None if isinstance(gold, Relational) or sides(gold) is not None else sides(reply)
        if parts is not None:
            # `x = 2 + 3 = 5` says 5 in each of its parts but the name, `x = 2y = 5` in one; `4 = 5` says nothing.
            values = [part for part in parts if part.has(sympy.Abs) or not is_expr_of_only_symbols(part)]
            if not values:
                return any(equal(gold, part) for part in parts)
            if len(parts) > 2 and len(values) < len(parts) and not gold.free_symbols:
                values = [value for value in values if not value.free_symbols]
            return 0 < len(values) < 6 and all(equal(gold, value) for value in values)
        return verify([gold], [reply], timeout_seconds=None) and is_near(gold, reply)

    def is_near(gold: Any, reply: Any) -> bool:
        """Return whether two formulas that math-verify takes for equal are so relative to their size.

        It compares six decimals, in which all small numbers are 0. Where no number comes out, its word holds.
        """
        members = [sorted(part.args, key=str) for part in (gold, reply) if type(part).__name__ == "FiniteSet"]
        if len(members) == 2 and len(members[0]) == len(members[1]):
            return all(any(is_near(left, right) for right in members[1]) for left in members[0])
        try:
            symbols = sorted(gold.free_symbols | reply.free_symbols, key=str)
            point = {symbol: sympy.Rational(137 + 29 * place, 100) for place, symbol in enumerate(symbols)}
            values = [complex(part.subs(point).doit().evalf(20)) for part in (gold, reply)]
            size = max(map(abs, values))
        except Exception:
            return True
        return not math.isfinite(size) or abs(values[0] - values[1]) <= RELATIVE_TOLERANCE * size

    equal(read("\\frac{x+1}{2}"), read("0.5x+0.6"))  # what libraries build at their first use is no one's time
    answers.write("{}\n")
    for line in sys.stdin:
        question = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, question["cpu_limit_s"])
        try:
            gold, reply = read(question["gold"]), read(question["reply"])
            is_equal = gold is not None and reply is not None and equal(gold, reply)
            answer: dict[str, object] = {"readable": reply is not None, "equal": bool(is_equal)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
