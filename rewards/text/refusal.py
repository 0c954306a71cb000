"""Refusals behind an answer or instead of one: `I cannot see the image`, `there is no way to know`, `hard to say`.

What cannot be seen, told or known is refused only where the speaker is the one who cannot: `he cannot tell` and
`I cannot see a dog` answer.
"""

import re

from rewards.text.denial import declines

_MATERIAL = (
    r"(?:image|picture|photo|photograph|screenshot|figure|graph|chart|diagram|attachment|visual|file|video|link)s?"
)
_THE_MATERIAL = (
    r"(?:(?:the|this|that|your|any|an?|such|of|attached|provided|uploaded|actual|visual)\s+){0,3}"
    rf"{_MATERIAL}\b(?!\s+(?:of|on|in|at)\b)"
)
_FIND_OUT = (
    r"(?:(?:tell|say|know|identify|recogni[sz]e|make\s+(?:it\s+)?out|see\s+it)(?!\s+(?:that|so|it\s+is|him|her|them|of)\b)|determine|decide|answer|judge|verify|confirm|conclude|infer"
    r"|ascertain|establish|respond|help|assist|be\s+(?:\w+ly\s+)?(?:sure|certain)|guess|comment)\b"
)
_FOUND_OUT = (
    r"(?:determined|told|known|identified|recogni[sz]ed|made\s+out|inferred|established|answered|verified|confirmed|concluded|judged|decided|ascertained|deduced"
    r"|estimated|calculated|computed|derived)\b"
)
_STARTS = (
    r"(?:^|[.,;:!?(]\s*|\b(?:but|though|although|however|because|since|as|so|and|or|sorry|unfortunately|afraid|i|we|one|you)"
    r"(?:\s+|(?='m\b)))"
)
_CANNOT = (
    r"(?:(?:'m\s+|am\s+|are\s+|was\s+)?(?:(?:can|could)(?:\s?not|n't|'t|\s+neither)|(?:not\s+able|unable)\s+to|(?:won't|will\s+not)\s+be\s+able\s+to)"
    r"(?:\s+(?:\w+ly|even|just|possibly))?|do(?:\s+not|n't)\s+(?:think|believe)\s+(?:that\s+)?(?:i|we)\s+can)"
)
_REFUSES = re.compile(
    rf"{_STARTS}(?:(?:really|honestly|simply|just|truly|still|also)\s+)?(?:"
    rf"{_CANNOT}\s+(?:{_FIND_OUT}|(?:see|view|access|open|load|read|process|analy[sz]e|inspect|look\s+at|interpret|find)(?:\s+n?or\s+\w+)?\s+{_THE_MATERIAL})"
    rf"|(?:do|did|have|would)(?:\s+not|n't)\s+(?:\w+ly\s+)?(?:(?:see|find|have|receive|get)\s+{_THE_MATERIAL}|know\b(?!\s+(?:that|of|how|him|her)\b))"
    r"|(?:(?:do|did)(?:\s+not|n't)\s+have|have\s+no|lack)\s+(?:(?:the|any|an?|enough|sufficient|direct|visual|necessary)\s+)*"
    r"(?:access|ability|information|info|context|data|way|means|capability|idea|clue|knowledge)\b"
    r"|(?:'m\s+|am\s+|are\s+)?(?:(?:really|just|quite)\s+)?(?:not\s+(?:(?:\w+ly|so|too|quite|at\s+all)\s+)?(?:sure|certain)|unsure|uncertain)\b"
    r")"
    rf"|\b(?:no\s?-?one|nobody)\s+(?:really\s+|actually\s+)?(?:knows|(?:can|could)\s+(?:\w+ly\s+|ever\s+)?{_FIND_OUT})"
    r"|\b(?:it|this|that|(?:the|my)\s+(?:correct\s+|right\s+)?answer)(?:'s|\s+is|\s+remains)\s+(?:(?:not|n't)\s+(?:\w+ly\s+)?(?:certain|clear|known)|uncertain|unclear|unknown)"
    r"\b(?=\s*(?:$|[.,;:!)]|(?:if|whether|from|based|due|what|which|who|how|because|as|to\s+me)\b))"
    rf"|\b(?:can|could)(?:\s?not|n't|'t)\s+(?:\w+ly\s+)?be\s+(?:\w+ly\s+)?{_FOUND_OUT}"
    rf"|\b(?:impossible|not\s+(?:really\s+)?possible|hard|difficult|tough|tricky|no\s+way)\s+(?:for\s+\w+\s+)?to\s+(?:\w+ly\s+)?{_FIND_OUT}"
    rf"|\b{_MATERIAL}\s+(?:itself\s+)?(?:is|was|are|were|has|have|did|does)\s*(?:(?:not|n't)\s+(?:\w+ly\s+)?(?:been\s+|be\s+)?"
    r"(?:visible|clear|legible|readable|shown|provided|available|attached|loaded|load|included|displayed|accessible|uploaded|given|present|supplied|here|there)"
    r"|missing|unavailable|inaccessible)\b"
    rf"|(?<!in\sthe\s)(?<!of\sthe\s)(?<!on\sthe\s)\b{_MATERIAL}\s+(?:(?:is|was|seems?|appears?)(?:\s+to\s+be)?\s+(?:(?:completely|entirely|all|too)\s+)?(?:blank|empty|black|missing|corrupt(?:ed)?|broken|unreadable)"
    r"|(?:is|was)\s+too\s+(?:blurry|dark|small)|(?:won't|will\s+not|(?:is|are)(?:n't|\s+not))\s+(?:load|open|display|show)(?:ing)?|did\s+not\s+(?:load|come\s+through))\b(?=\s*(?:$|[.,;:!)]|so\b|to\b))"
    rf"|\b(?:i|we|i'd)\s+(?:would\s+)?(?:need|require)\s+(?:to\s+(?:see|view|have|know)\s+)?(?:{_THE_MATERIAL}|more\s+(?:\w+\s+)?(?:information|info|context|details?|data)\b)"
    r"|(?<!no\s)\b(?:more|further|additional)\s+(?:information|info|context|details?|data)\s+(?:is|are|would\s+be)\s+(?:needed|required|necessary)\b"
    rf"|^without\s+{_THE_MATERIAL}"
    r"|\b(?:it|this|that|(?:the|this)\s+(?:answer|city|location|place|question|object|animal|person))(?:'s|\s+is|\s+are|\s+was)\s+(?:un(?:known|identified|identifiable|recogni[sz]able|answerable|determined)|indeterminate|(?:not\s+)(?:recogni[sz]able|identifiable|legible))\b"
    r"(?=\s*(?:$|[.,;:!)]))"
    r"|^not\s+(?:clear|certain|sure|known|possible|visible)\b|^(?:un(?:known|clear|certain|determined|answerable|sure)|indeterminate)\b(?=\s*(?:$|[.,;:!]))|^cannot\s+be\b"
    r"|\b(?:idk|dunno|beats\s+me|(?:god|who|heaven|lord)\s+knows|nothing\s+to\s+see)\b|^no\s+(?:comment|idea|clue)\b"
    r"|\bi(?:'m|\s+am)\s+(?:just\s+|only\s+)?an?\s+(?:ai|(?:large\s+)?language\s+model)\b|^sorry\b"
    rf"|\b{_MATERIAL}\s+can(?:\s?not|'t)\s+be\s+(?:seen|viewed|loaded|opened|displayed|accessed)\b"
    rf"|(?:\bnot|n't)\s+(?:been\s+)?given\s+{_THE_MATERIAL}|\bnothing\s+is\s+(?:visible|shown)\b"
    rf"|(?:\bnot|n't|\bforgot\s+to)\s+(?:attach|provide|upload|include|send|share|supply)(?:e?d)?\s+{_THE_MATERIAL}"
    r"|(?:(?:\bnot|n't)\s+(?:\w+\s+){0,2}?(?:enough|sufficient|adequate)|\binsufficient|\binadequate|\btoo\s+little)\s+(?:\w+\s+)?"
    r"(?:information|info|data|context|evidence|details?)\b"
    r"|\b(?:can|could|might|may)\s+be\s+any(?:thing|one|body|where|\s+of)\b"
    rf"|\bplease\s+(?:re-?)?(?:upload|provide|attach|share|send|supply|include)\b|\b{_MATERIAL}\s+(?:has\s+)?failed\s+to\b"
    r"|\bas\s+an?\s+(?:ai|(?:large\s+)?language\s+model|text)\b"
)
_NO_IS_STATED = re.compile(
    r"(?:^|[.,;:!?(]\s*|\b(?:there(?:'s|\s+(?:is|are|was|were))|i\s+(?:can\s+)?(?:see|have|find|received?|got)|with|but|as|since|because|sorry)\s+)$"
)
_IN_THE_SCENE = re.compile(
    r"no\s+(?:[\w-]+\s+){0,2}?(?:tables?|charts?|graphs?|figures?|files?|links?|documents?|videos?|numbers?|numeric|count|total|tools?|contents?"
    r"|view|reading|options?|descriptions?|results?|luck|thanks|inputs?|details?|comments?)\W*$"
)
"""Without more words, what a picture may lack as well as a question: `there is no table`."""


def refuses(text: str) -> bool:
    """Return whether words that explain an answer, or stand for one, say that there is no answer to give.

    Args:
        text: Through `plain_text.clean`, from behind the label.

    Example:
        >>> refuses("I cannot see the image"), refuses("I cannot see a dog"), refuses("there is no way to know")
        (True, False, True)
    """
    text = text.strip().casefold()
    return lacks_material(text) or _REFUSES.search(text) is not None


def lacks_material(text: str) -> bool:
    """Return whether a folded text says that there is no image, no answer or no way to one.

    Example:
        >>> lacks_material("there is no image"), lacks_material("there is no image of a dog")
        (True, False)
    """
    at = text.find("no ")
    while at >= 0:
        if _NO_IS_STATED.search(text, 0, at) and declines(text[at:]) and not _IN_THE_SCENE.match(text, at):
            return True
        at = text.find("no ", at + 3)
    return False
