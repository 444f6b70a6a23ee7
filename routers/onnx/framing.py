"""What a prompt says of the form of its answer, told from what it asks.

Applications wrap what their users ask in templates: a role before it, labels around it, and after
it how to think and which JSON to answer with. The same question must get the same score in any of
them, so such sentences are dropped from both ends of a text before it is scored. What is sent to
a model is never changed. English only.
"""

from __future__ import annotations

import re

# So much of either end is looked at for a first sign of a template, and a sentence or a block of
# code is no longer than this where it belongs to one.
LOOK = 400
SENTENCE, BLOCK = 300, 600
# Sentences that are dropped from one end at most.
ROUNDS = 8
_SIGNS = re.compile(
    r"answer|respon[ds]|repl[yi]|json|xml|yaml|output|instruction|explanation|concise|brief|boxed|"
    r"reasoning|step|your work|question|problem|task|#|you(?: a|['\u2019])re an? |following|[qar]:|"
    r"think|words|sentence|user|<|inst\]|input:|english|option|letter"
)
_LEAD = (
    r"(?:(?:please|then|and|finally|now|first|also|next|afterwards|just|simply|only|always|never|"
    r"carefully|to (?:answer|do so|do this)|when you are (?:done|finished|ready))[, ]+)*"
)
_MADE = r"(?:answers?|responses?|output|reply|solutions?|results?|reasoning|explanations?)"
_ASKED = r"(?:questions?|problems?|tasks?|instructions?|requests?|prompts?|exercises?|puzzles?)"
_YOU_ARE = r"you(?: are|['\u2019]re)"
_REST = r"[^\n?]{0,200}"
# Sentences about the answer, and about who gives it. Each is matched as a whole, in small letters.
_HOW_TO_THINK = (
    r"(?:let['\u2019]?s |let us |you should |try to )?(?:think|reason|work|solve|go|explain)"
    rf"(?: (?:it|this|carefully|out|(?:the |this ){_ASKED}|about (?:it|this|(?:the|this) {_ASKED})|"
    rf"through (?:it|this|the {_ASKED})))*,? step[- ]by[- ]step\b{_REST}",
    rf"(?:think|reason) (?:carefully|hard|first|before|about (?:it|this|(?:the|this) {_ASKED})|"
    rf"inside|within|in)\b{_REST}",
    rf"take your time\b{_REST}",
    r"(?:explain|show|justify|describe) (?:your|all(?: of)? your|the|each|all) "
    rf"(?:reasoning|work|working|answer|choice|steps?|thinking|thought process)\b{_REST}",
)
_WHAT_TO_ANSWER = (
    r"(?:answer|respond|reply)(?: only| just)? (?:with|in|using|as|by|only|just|briefly|concisely|"
    rf"directly|clearly|shortly|politely|truthfully|to the point|yes or no)\b{_REST}",
    rf"(?:answer|solve) (?:this|the|each|my|it)(?: following| above| given)?(?: {_ASKED})?"
    r"(?: (?:based on|with|by|from|carefully|concisely|briefly|as)\b[^\n?:]{0,120})?",
    r"(?:put|write|give|state|provide|box|place|enclose|present|output|return|include|format|"
    r"express|finish|end|conclude|start|begin)(?: your \w+)?(?: (?:with|by giving))? "
    r"(?:(?:your|the|only|just|both|all|final|correct|complete|full|single|exact|numerical) )*"
    rf"(?:{_MADE}|letter|option|choice|both|number)\b{_REST}",
    r"(?:choose|pick|select) (?:only )?(?:the |one )?"
    r"(?:(?:single|most|best|correct|right|likely|suitable|appropriate) )*"
    rf"(?:answers?|options?|choices?|letters?)\b{_REST}",
    rf"(?:your|the) (?:(?:final|whole|entire|full) )*{_MADE} "
    rf"(?:should|must|has to|needs to|is to)\b{_REST}",
    rf"(?:use|follow) (?:the|this)(?: following| exact)? (?:format|structure|template)\b{_REST}",
)
_WHAT_TO_LEAVE = (
    r"(?:do not|don['\u2019]?t|never|no need to) (?:include|add|give|provide|explain|write|"
    rf"output|use|show|repeat|mention|return|say|make (?:up|things))\b{_REST}",
    r"no (?:explanations?|preamble|other text|extra text|additional text|comments|markdown)"
    rf"\b{_REST}",
    r"if you (?:do not|don['\u2019]?t|are not|are un|aren['\u2019]?t) ?(?:know|sure|certain)"
    rf"\b{_REST}",
    rf"(?:keep|make|limit) (?:your|the) {_MADE}\b{_REST}",
    rf"(?:keep|make) it (?:brief|concise|clear|short|simple|to|under|below|within)\b{_REST}",
    r"(?:be|stay) (?:brief|concise|clear|short|succinct|precise|specific|polite|helpful|accurate)"
    rf"\b{_REST}",
    rf"use (?:plain|simple|clear|formal) (?:language|english|words)\b{_REST}",
    r"(?:use|in) (?:at most|no more than|fewer than|less than|under|exactly|about|up to) "
    rf"\w+ (?:words?|sentences?|lines?|paragraphs?|bullet points?)\b{_REST}",
    r"nothing else",
)
_WHO_AND_WHAT = (
    rf"{_YOU_ARE} (?:now )?(?:an? |the |my )?[^.!?\n]{{0,40}}\b"
    r"(?:assistant|expert|ai|agent|tutor|language model|chatbot|bot)\b[^.!?\n]{0,120}",
    r"(?:i will give you|i['\u2019]ll give you|you will (?:be given|get|see|receive)|you are given|"
    r"below (?:is|are)|here (?:is|are)|the following (?:is|are)) (?:an? |some |the |my )?"
    rf"(?:[\w-]{{1,15}} ){{0,2}}{_ASKED}\b[^.?\n]{{0,120}}",
    r"help (?:the|a|me|our) (?:[\w-]{1,15} )?(?:with )?(?:the |this |my )?[^.?\n]{0,20}"
    rf"{_ASKED}(?: (?:below|above))?",
    r"write a response that [^.:\n]{0,80}",
)
_FORM = re.compile(
    rf"(?:[-*]|\d{{1,2}}[.)])? ?{_LEAD}(?:"
    + "|".join(_HOW_TO_THINK + _WHAT_TO_ANSWER + _WHAT_TO_LEAVE + _WHO_AND_WHAT)
    + r")[.!:;)\"'`\u201d ]*"
)
# Only behind what is asked: at the beginning such a sentence is the task itself.
_AS_JSON = re.compile(
    r"[^\n?:]{0,80}\b(?:in|as|using|with) "
    r"(?:(?:a|an|the|this|valid|single|strict|following|plain|raw) )*"
    rf"(?:json|xml|yaml|markdown)\b{_REST}"
)
# A label that has its line for itself.
_LABEL = re.compile(
    r"[#*>\s]*(?:(?:final |your |the |helpful |short )?"
    r"(?:answers?|response|output|solution|assistant|reply|a)|"
    r"instructions?|output format|answer format|response format|format|notes?|rules|"
    r"context[: ]+none)[*\s]*:?[*\s]*"
)
_TAG = r"(?:question|query|input|problem|task|user|prompt|instructions?|message)"
_TAG_AFTER = re.compile(rf"\s*(?:</{_TAG}>|\[/inst\])\Z", re.IGNORECASE)
# What stands before a question on its own line.
_OPENING = re.compile(
    r"[#*>\s]*(?:(?:the |user |your |customer )?(?:question|instructions?|input|task|problem|"
    r"prompt|query|exercise|message)|user|human|customer|student|q)(?: ?\d{1,3})?"
    r"(?:[*\s]*[:\uff1a][*\s]*|[*#\s]*\n)"
    rf"|{_LEAD}(?:answer|solve|complete|respond to|consider|read|look at) "
    rf"(?:carefully )?(?:the|this|these)(?: following| next)?(?: [\w-]{{1,15}}){{0,2}} {_ASKED}\b"
    r"(?! using)[^.:?\n]{0,100}[.:\n]\s*"
    rf"|<{_TAG}>|\[inst\]",
)
_SENTENCE_END = re.compile(r"[.!?][\"')\u201d]*\s+|\n")


def unframed(text: str) -> str:
    """`text`, which is tidy (see `routers.onnx.render.tidy`), without the sentences of a template
    at its ends; `text` itself where nothing but a template would be left, or there is none."""
    ends = text if len(text) <= 2 * LOOK else f"{text[:LOOK]}\n{text[-LOOK:]}"
    if _SIGNS.search(ends.lower()) is None:
        return text
    bare = _without_form(_without_opening(text))
    return bare if _asks(bare) else text


def _asks(text: str) -> bool:
    """Whether something is left: two words, or a sign that is no letter."""
    return len(text.split(None, 2)) > 1 or (len(text) > 3 and not text.isalpha())


def _without_form(text: str) -> str:
    for _ in range(ROUNDS):
        text = text.rstrip()
        start = _last(text)
        piece = text[start:].lower()
        block = _template(text)
        if block is not None:
            text = block
        elif start and _of_form(piece):
            text = text[:start]
        else:
            tag = _TAG_AFTER.search(text, max(0, len(text) - SENTENCE))
            if tag is None or not tag.start():
                break
            text = text[: tag.start()]
    return text.rstrip()


def _last(text: str) -> int:
    """Where the last sentence or line begins; 0 where it is too long to be a template's."""
    start = 0
    for found in _SENTENCE_END.finditer(text, max(0, len(text) - SENTENCE)):
        if found.end() < len(text):
            start = found.end()
    return start


def _template(text: str) -> str | None:
    """The text before a block at its end that shows the form of the answer, where the sentence or
    label before the block says so; else None."""
    if text.endswith("```"):
        start = text.rfind("```", 0, -3)
    elif text.endswith("}"):
        start = text.rfind("\n{", max(0, len(text) - BLOCK))
    else:
        return None
    if start <= 0 or len(text) - start > BLOCK:
        return None
    before = text[:start].rstrip()
    said = before[_last(before) :].lower()
    return before if _of_form(said) else None


def _of_form(piece: str) -> bool:
    return any(kind.fullmatch(piece) for kind in (_FORM, _LABEL, _AS_JSON))


def _without_opening(text: str) -> str:
    for _ in range(ROUNDS):
        head = text[: 2 * SENTENCE].lower()
        found = _OPENING.match(head)
        end = found.end() if found else 0
        if not end:
            first = _SENTENCE_END.search(head, 0, SENTENCE)
            end = first.end() if first and _FORM.fullmatch(head[: first.end()].rstrip()) else 0
        if not end:
            break
        text = text[end:].lstrip()
    return text
