"""Words that deny, doubt, take back or refuse an answer: one list for all rewards.

Texts are those of `plain_text.clean` and of capped length. `probably` and `likely` are no doubt: whoever says so has
answered. `maybe`, `perhaps` and `might` are one.
"""

import re

NOT = r"(?:not|never|hardly|scarcely|\w+n't|cannot|can\s+not|no\s+longer)"
FALSE = (
    r"(?:incorrect|inaccurate|wrong|false|untrue|invalid|unlikely|impossible|mistaken|erroneous|(?:ruled|crossed)\s+out"
    r"|out(?!\s+of)|an?\s+(?:error|mistake|lie)|eliminated|excluded|rejected|refuted|inappropriate|unsuitable|contradicted"
    r"|no\s+(?:good|answer|option|match|fit))"
)
_DOUBT = (
    r"(?:maybe|perhaps|possibly|(?:could|might|may)\s+(?:also\s+|well\s+|just\s+)?be|conceivably|unsure|unclear|unknown"
    r"|uncertain|doubt(?:s|ful|fully)?|deny|denies|questionable)"
)
UNSURE = re.compile(
    r"\b(?:not|never|no(?!,)|nor|neither|none|cannot|\w+n't|if|whether|unless|either|might|could|maybe|perhaps|possibly"
    r"|hardly|nobody|few\s+(?:people\s+)?(?:would|will|say|think|believe)|suppos(?:e|ing)|assum(?:e|ing)|imagin(?:e|ing)|pretend"
    r"|hypothetically|otherwise|whenever|in\s+case|as\s+long\s+as|(?:provided|condition)\s+that|in\s+the\s+event"
    r"|wrong|false|incorrect|(?:un|least\s+)likely|doubt|deny|unsure|unclear|unknown|refuse|avoid|hesitate"
    r"|except|excluding|(?-i:may))\b|^\s*(?:what|which|who|why|how|should|do|does|did|is|are|can|would|shall|had|were|provided)\b"
    # Should not, cannot, unable to, unclear, perhaps, if, wrong.
    "|\u4e0d(?:\u5e94|\u80fd|\u4f1a|\u53ef|\u8981|\u786e\u5b9a|\u77e5\u9053|\u6e05)|\u65e0\u6cd5|\u96be\u4ee5|\u6ca1\u6709(?:\u56fe|\u7b54)|\u770b\u4e0d\u6e05|\u53ef\u80fd|\u5982\u679c|\u9519\u8bef"
    r"|\b(?:opposite|reverse|inverse|contrary|negation|antonym)\s+(?:of|to)\s+(?:(?:the|my)\s+)?(?:(?:correct|right)\s+)?$",
    re.IGNORECASE,
)
"""What doubts, denies, asks or makes conditions, in the clause in front of an answer."""
NO_DOUBT = re.compile(
    r"[\s,]*\b(?:(?:there\s+is\s+)?(?:no|without(?:\s+an?y?)?)\s+(?:doubt|question)(?:\s+(?:that|about\s+it))?|none\s+other\s+than"
    r"|(?:it\s+is\s+)?not\s+(?:difficult|hard)\s+to\s+see\s+that)\b,?",
    re.IGNORECASE,
)
"""Negations that affirm."""
_HESITATION = r"(?:(?:hmm+|well|wait|actually|sorry|oops|uh|er|oh|ah|but|and|or|then|rather)\b[\s,.:;!-]*)"
TAKEN_BACK = re.compile(
    rf"{_HESITATION}*(?:"
    r"(?:i(?:'m|\s+am|\s+was)\s+)?(?:only\s+|just\s+)?(?:kidding|joking)\b|i(?:'m|\s+am|\s+was)\s+(?:wrong|mistaken)\b"
    r"|i\s+(?:lied|take\s+(?:it|that|this)\s+back|misread|misspoke|(?:have\s+)?changed?\s+my\s+mind|made\s+(?:a|an)\s+\w+)\b"
    r"|(?:on\s+second\s+thoughts?|never\s*mind|my\s+(?:mistake|bad|error)|let\s+me\s+(?:rethink|reconsider|correct|try|redo))\b"
    r"|(?:please\s+)?(?:scratch|scrap|strike|ignore|disregard|forget|delete|cancel|undo|retract|discard)\s+(?:that|this|it|my|the|what)\b"
    r"|i\s+stand\s+corrected\b|(?:that|this|it)\s+was\s+(?:only\s+|just\s+)?a\s+joke\b"
    r"|(?:(?:no|nope|nah)(?=\W*$)|i\s+(?:really\s+)?meant?\b)"
    r")",
    re.IGNORECASE,
)
"""What takes back any answer before it."""
HEDGE = re.compile(
    rf"(?:or(?!\s+(?:so|thereabouts)\b)|nor|etc|and\s+so\s+on|among\s+others|unless|{_DOUBT}"
    rf"|but\s+(?:also|{_DOUBT}))\b",
    re.IGNORECASE,
)
"""Behind an answer: it is one of several, or in doubt."""
_ADVERBS = (
    r"(?:(?:an?|the|clearly|definitely|obviously|certainly|probably|also|therefore|thus|most|simply|just|really)\s+)"
    r"{0,4}"
)
_COPULA = r"(?:is|was|are|were|can|could|would|must|should|does|do|has|have|had|be|been|being|seems|looks)"
DENIED = re.compile(
    rf"(?:{_COPULA}\b\s*){{0,3}}{_ADVERBS}"
    rf"(?:{NOT}\b|{FALSE}\b|nope\b|nah\b|no\b(?=\W*$|\s*[,.;:!]))",
    re.IGNORECASE,
)
"""At the start of what is said of an answer: it denies that answer."""
DENIED_LATER = re.compile(
    r"\b(?:it|this|that|which|(?:this|that|the|my)\s+(?:option|choice|answer|one|statement|count|number|value))\s*"
    r"(?:(?:is|was|'s|would\s+be|must\s+be|can|does)\b\s*)?"
    rf"(?:(?:an?|the|clearly|therefore|thus)\s+)*(?:{NOT}\s+(?:be\s+)?(?:the\s+|an?\s+|my\s+|quite\s+)?"
    rf"(?:correct|right|true|answer|option|choice|accurate|it|one|fit|match|possible|so|the\s+case)|{FALSE})\b"
    r"|\bi\s+(?:don't\s+think\s+so|doubt\s+(?:it|that|this))\b",
    re.IGNORECASE,
)
_NUMBER_DOUBTED_LATER = re.compile(
    r"(?:\bnot|\bcannot|n't)\s+(?:be\s+)?(?:(?:\w+ly|too|that|so)\s+)?(?:sure|certain|confident|positive)\b|\b(?:unsure|uncertain|unclear|no\s+idea)\b"
    r"|\b(?:could|might|may)\s+(?:(?:also|well|easily|still)\s+)?(?:be|have\s+been|have)\s+(?:more|fewer|less|others?|another|wrong|mistaken"
    r"|off|incorrect|hidden|additional|missed|miscounted)\b|\b(?:hard|difficult|impossible|tricky)\s+to\s+(?:say|tell|count|see|determine)\b"
)
"""What doubts a number before it: `4, but there could be more`."""
LACKS = re.compile(r"(?:ha(?:s|ve|d)|shows?|contains?)\s+(?:no|none|nothing)\b|lack(?:s|ed|ing)?\b", re.IGNORECASE)
"""Said of another option, it denies that one."""
REFUSAL = re.compile(
    r"\bI\b[\s,.:'-]*(?:am|m|was|ve|d|have|as\b.{0,60}?|really|simply|just|do|must|will)?\b[\s,]*"
    r"(?:\w+\s+){0,2}?(?:unable|sorry|afraid|cannot|can\s+not|\w+n't|not|no|unsure|apologi[sz]e|refuse|lack)\b",
    re.IGNORECASE,
)
"""A refusal in the first person."""
_UNDONE = re.compile(rf"\s+(?:be\s+)?(?:{FALSE}|(?:the\s+)?only|alone|just)\b", re.IGNORECASE)
"""Behind a denial: `not wrong` and `not the only one` deny nothing."""
_OF_A_NUMBER = re.compile(
    rf"(?:{_COPULA}\b\s*){{1,3}}{_ADVERBS}(?:{NOT}|{FALSE})\b"
    rf"|(?:{NOT}|{FALSE}|nope|nah|no)\b(?=\W*$|\s*[,.;:!]|\s+(?:be|really|quite|sure|exactly|right|correct|at\s+all|it|so)\b)"
    rf"|(?:{_COPULA}\s+)?{_ADVERBS}too\s+(?:many|much|few|little|high|low|large|small|big|great)\b"
    r"|(?:is\s+)?(?:fails?|failed|extraneous|rejected|discarded|dismissed|(?:far|way)\s+off)\b",
    re.IGNORECASE,
)
_POINTED_AWAY = re.compile(
    rf"\b(?:{NOT}|no|(?:any|every)(?:thing|where)\s+but|all\s+but|nothing|nobody|no[\s-]one|none|except(?:ing)?|exclud(?:e|es|ing)|other\s+than|outside|avoid(?:ing)?|ignor(?:e|ing)|without)\b",
    re.IGNORECASE,
)
_DESCRIBED = re.compile(
    r"(?<=[a-z])(?:\s+without\s+(?:an?|the|his|her|its|their)\s+[a-z]+|\s+with\s+no\s+[a-z]+|\s+(?:that|who|which)\s+(?:(?:is|are|was|were|does|do"
    r"|has|have)\s+not|(?:is|are|was|were|does|do|has|have)n't)\s+(?!(?:at|in|inside|on|within|here|there)\b)[a-z]+|(?<!\bis)(?<!\bare)(?<!\bwas)(?<!\bwere)\s+not\s+[a-z]+ing"
    r"|\s+not\s+(?:occluded|hidden|blocked|cropped|truncated|obstructed|covered)"
    r"|\s+outside\s+(?:of\s+)?(?:the|an?)\s+(?!b?box|bounding|region|area|frame|rectangle|point|coordinate|circle|square|location|position)[a-z]+)\b",
    re.IGNORECASE,
)
"""What a thing lacks or is not says which one it is: `the dog without a collar`, `the man not wearing a hat`."""
_EMPTIED = re.compile(rf"\W*(?:(?:is|are|was|were)\s+(?:empty|blank|vacant)\b|(?:{LACKS.pattern}))", re.IGNORECASE)
_ASIDE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_LAST_CLAUSE = re.compile(r"[.;!?]\s")
_DOUBTED = re.compile(
    rf"\b{_DOUBT}\b|\b(?:wrong|false|incorrect|unlikely|hardly|refuse|suppos(?:e|ing)|imagine)\b|^\s*(?:none|nothing)\b|^\s*(?:is|are|was|were|does|do|did|should|would|could)\s"
)
_CLAUSE = re.compile(r"[.,;:!?]\s")
_EDGES = " \t\n\"'*:,.;/()[]{}?!-"

_GIVEN = (
    "image|images|picture|pictures|photo|photos|photograph|photographs|screenshot|file|files|attachment|attachments|visual|visuals"
    "|video|upload|figure|graph|chart|table|document|link"
)
"""What a question comes with; that there is none of it is said of the question, unless a place follows."""
_TOLD = (
    "idea|ideas|clue|clues|answer|answers|response|comment|comments|opinion|conclusion|information|info|data|context|way|input"
    "|inputs|ability|access|estimate|number|numbers|numerical|numeric|count|counts|total|result|results|detail|details|means|method|guess"
    "|question|thanks|luck|need|option|options|evidence|indication|certainty|knowledge|value|reading|view|basis|tool|tools"
    "|permission|capability|description|explanation|prediction|solution|determination|content|contents|reason|hint|such"
)
_WITHHELD = (
    r"(?:provided|given|attached|available|uploaded|included|supplied|received|specified|stated|mentioned|asked|offered|found|here"
    r"|visible|shown|present|loaded|accessible|known|possible|determined|told|inferred|established|made|drawn|reached|answered"
    r"|estimated|verified|confirmed|concluded|said|derived|calculated|computed|ascertained|deduced|read|reported|counted)"
)
_KNOWN = (
    r"\b(?:can|could|may)\s+(?:not\s+)?be\s+(?:\w+ly\s+)?(?:determined|told|inferred|established|made|drawn|reached|answered"
    r"|given|provided|estimated|verified|confirmed|concluded|said|derived|calculated|computed|ascertained|deduced|counted)\b"
)
_DECLINED = re.compile(
    rf"no\s+(?:(?!(?:in|on|at|of|from|with|to|near|and|or|by|is|are)\b)[\w-]+\s+){{0,2}}?(?:"
    rf"(?:{_GIVEN}|{_TOLD})(?:\s*$|[.,;:!]|\s+(?:(?:is|are|was|were|has|have|had|can|could)\s+)?(?:been\s+|be\s+)?(?:\w+ly\s+)?"
    rf"(?:{_WITHHELD}|at\s+all)\s*(?:$|[.,;:!]|for\b|to\b|by\b|in\s+(?:the|this|your)\s+(?:question|prompt|message|conversation)\b))"
    rf"|(?:{_GIVEN})\s+to\s+(?:analy[sz]e|see|view|look|count|examine|inspect|describe|read|refer|judge|process|answer)\b"
    rf"|(?:{_TOLD})\s+(?:to\b|how\b|what\b|about\b|on\s+(?:that|this|how)\b))|no\s.*{_KNOWN}",
    re.IGNORECASE,
)

_SEE = r"(?:see|count|find|spot|detect|notice)"
_VIEW = r"(?:the|this)\s+(?:image|picture|photo(?:graph)?|scene|frame|drawing|painting|illustration|figure|video)"
_IN_VIEW = r"(?:in|on|at|from|within)\s+(?:the|this|that)\s+[a-z]+"
_THERE = (
    rf"(?:there(?:'s|\s+(?:is|are|was|were))|(?:i|we|you)\s+(?:can\s+)?{_SEE}"
    rf"|{_VIEW}\s+(?:shows?|contains?|has|depicts?|displays?|includes?|features?))"
)
_DOES_NOT = r"(?:(?:do|does|did|could)(?:\s+not|n't)|can(?:not|'t|\s+not))"
_SEE_NOT = (
    rf"(?:there\s+(?:is|are|was|were)\s?(?:not|n't)|(?:i|we|you)\s+{_DOES_NOT}\s+{_SEE}"
    rf"|{_VIEW}\s+{_DOES_NOT}\s+(?:show|contain|have|depict|display|include|feature)|not)"
)
_WORDS = r"[a-z-]+(?:\s+[a-z-]+){0,8}"
_IS = r"(?:is|are|was|were|ha(?:s|ve)|can\s+be)"
_NOTHING = re.compile(
    rf"(?:no,\s+(?={_THERE}|{_SEE_NOT}|{_IN_VIEW}))?(?:{_IN_VIEW},?\s+)?(?:"
    rf"(?:{_THERE}\s+)?(?:none|no|nothing|0|nobody|no[\s-]one)(?:\s+(?:of\s+(?:them|these|those|the\s+(?!above)[a-z]+)|at\s+all|to\s+{_SEE}))?"
    rf"(?:\s+{_IS})?(?:\s+(?:there|visible|here|seen|shown|present|found|{_IN_VIEW}))*"
    rf"|{_SEE_NOT}\s+(?:any|(?:a\s+single\s+)?one|any(?:one|body|thing)(?:\s+{_IN_VIEW})?)|(?:{_THERE}\s+)?no\s+(?!one\b)(?P<things>{_WORDS})"
    rf"|{_SEE_NOT}\s+(?:any|an?|a\s+single|one|1)\s+(?P<any>{_WORDS})"
    rf"|(?:nobody|no[\s-]one|none\s+of\s+(?:the|these|those)\s+(?!above))\s*(?P<who>(?:[a-z]+\s+){{0,3}}?{_IS}\s+{_WORDS}))"
)
"""What says that there is nothing to count: `none`, `no dogs`, `I don't see any dogs`, `none of the men are old`."""
_SOMETHING = re.compile(
    r"\b(?:but|except|not|than|unless|if|or\s+(?:maybe|perhaps|possibly|a)|maybe|perhaps|possibly|few|fewer|less|more|some|several"
    r"|many|other|further|longer|missing|absent|lost|hidden|excluded|omitted|gone|lacking|unseen|invisible|without"
    r"|besides|apart|aside|bar|save|beyond|until|till|before|ruled|denied|dismissed|discounted|else|sure|certain|able|aware)\b"
    r"|^(?:(?:way|means|method)\s+of|telling|saying|knowing|guessing|denying|doubting|mistaking|counting)\b"
    r"|^(?:[a-z]+\s+)?(?:shortage|lack|end|scarcity|dearth|absence|limits?|number|amount|quantity|paucity|exceptions?)\b"
    r"|^(?:one|doubt|problem|(?:small|mean|limited|large|great|single)\s+(?:number|amount|quantity|count|feat))\b"
)
"""In what there is none of, it says that there is something: `no lack of dogs`, `no dog is missing`, `no more dogs`."""


def is_denied(text: str) -> bool:
    """Return whether what is said of an answer denies it; `is not wrong` denies nothing.

    Example:
        >>> is_denied("is ruled out"), is_denied("is not wrong"), is_denied("fits")
        (True, False, False)
    """
    denial = DENIED.match(text)
    return denial is not None and _UNDONE.match(text, denial.end()) is None


def is_number_denied(before: str, behind: str) -> bool:
    """Return whether the words around a number deny, doubt or take it back: `45 is wrong`, `I doubt it is 45`.

    Example:
        >>> is_number_denied("", "? No."), is_number_denied("", " wrong answers"), is_number_denied("perhaps ", "")
        (True, False, True)
    """
    clause = _LAST_CLAUSE.split(before)[-1]
    said = behind.lstrip(_EDGES)
    denial = _OF_A_NUMBER.match(said)
    return (
        _DOUBTED.search(clause) is not None
        or (denial is not None and _UNDONE.match(said, denial.end()) is None)
        or HEDGE.match(said) is not None
        or TAKEN_BACK.match(said) is not None
        or DENIED_LATER.search(behind) is not None
        or _NUMBER_DOUBTED_LATER.search(behind) is not None
    )


def declines(text: str) -> bool:
    """Return whether a text that begins with `no` refuses to answer: `no idea`, `no image was provided`.

    `No photos are on the table` and `No image of a dog is seen` answer.

    Example:
        >>> declines("no clear answer"), declines("no picture is hanging on the wall"), declines("no data is missing")
        (True, False, False)
    """
    return _DECLINED.match(text) is not None


def says_none(text: str) -> bool:
    """Return whether a text says that there is nothing of a kind, and neither refuses nor takes that back.

    Args:
        text: Through `plain_text.normalise`.

    Example:
        >>> says_none("i don't see any dogs"), says_none("no lack of dogs"), says_none("no idea")
        (True, False, False)
    """
    nothing = _NOTHING.fullmatch(text)
    if nothing is None:
        return False
    things = nothing["things"] or nothing["any"] or nothing["who"]
    return things is None or not (_SOMETHING.search(things) or declines(f"no {things}"))


def is_pointed_away(before: str, behind: str) -> bool:
    """Return whether the words around a box or point deny or doubt it: `not [..]`, `no dog at (..)`, `[..] is empty`.

    Args:
        before: The text in front of it, from the box or point before.
        behind: The text behind it.
    """
    clause = _CLAUSE.split(_ASIDE.sub("", before).rstrip(" :"))[-1]
    if _DOUBTED.search(clause.casefold()) is not None or _POINTED_AWAY.search(_DESCRIBED.sub("", clause)):
        return True
    return _EMPTIED.match(behind) is not None
