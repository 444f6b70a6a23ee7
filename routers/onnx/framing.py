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
# One of these is in every template that is known here. Plain words: quicker than an expression.
_WORDS = (
    "answer|respon|repl|json|xml|yaml|output|instruction|explan|concise|brief|boxed|reasoning|step|"
    "your work|question|problem|task|#|you are a|you're a|you\u2019re a|following|q:|a:|r:|think|"
    "words|sentence|user|<|inst]|input:|english|option|letter|assistant|act as|do not|don't|"
    "don\u2019t|never|avoid|keep it|```|query|customer|student|markdown|note:|---|schema"
)
_SIGNS = tuple(_WORDS.split("|"))
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
    r"before (?:you )?(?:reply|answer|respond|giving|finish)\w*\b" + _REST,
    r"(?:check|verify|double[- ]check) (?:your|the) (?:reasoning|work|answer|calculations?)\b"
    + _REST,
    r"(?:explain|show|justify|describe) (?:your|all(?: of)? your|the|each|all) "
    rf"(?:reasoning|work|working|answer|choice|steps?|thinking|thought process)\b{_REST}",
)
_WHAT_TO_ANSWER = (
    r"(?:answer|respond|reply)(?: only| just)? (?:with|in|using|as|by|only|just|briefly|concisely|"
    rf"directly|clearly|shortly|politely|truthfully|to the point|yes or no)\b{_REST}",
    r"(?:answer|solve) (?:(?:this|the|each|my|it)|"
    rf"(?:this|the|each|my)(?: [\w'\u2019-]{{1,15}}){{0,3}}? (?:{_ASKED}|query|message))"
    r"(?: (?:above|below|at the end))?"
    r"(?: (?:based on|with|by|from|carefully|concisely|briefly|as)\b[^\n?:]{0,120})?",
    r"(?:greet|address) (?:the|your) (?:customer|user|reader|student)\b" + _REST,
    r"(?:explain|describe|put) it (?:so|as|in|to|like|simply|clearly)\b" + _REST,
    r"(?:format|structure|style|phrase|word|round) (?:your|the|it)\b" + _REST,
    r"[^\n?:]{0,60}\b(?:words|sentences|paragraphs|lines) (?:are|is) (?:enough|plenty|fine)\b"
    + _REST,
    r"(?:plain text|one paragraph|one sentence|bullet points|no markdown)(?: only)?\b[^\n?]{0,40}",
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
    r"(?:do not|don['\u2019]?t|never|avoid|no need to) (?:use |using )?(?:include|add|give|provide|"
    r"explain|write|output|show|repeat|mention|return|say|make|wrap|promise|share|ask|talk|pick|assume|"
    r"apologi[sz]e|refer|guess|invent|reveal|restate|any (?:text|markdown|lists?)|lists?|headings?|"
    rf"markdown|bullet|emojis?|jargon|tables?|filler)\b{_REST}",
    r"if (?:you (?:find|cannot|can['\u2019]?t)|this is multiple|"
    rf"the (?:message|question|topic|answer))\b{_REST}",
    rf"(?:output|return|print|say) nothing (?:but|else)\b{_REST}",
    r"no (?:explanations?|preamble|other text|extra text|additional text|comments|markdown)"
    rf"\b{_REST}",
    r"if you (?:do not|don['\u2019]?t|are not|are un|aren['\u2019]?t) ?(?:know|sure|certain)"
    rf"\b{_REST}",
    rf"(?:keep|make|limit) (?:your|the)(?: (?:whole|final|entire|full))* {_MADE}\b{_REST}",
    rf"(?:keep|make) it (?:brief|concise|clear|short|simple|to|under|below|within)\b{_REST}",
    r"(?:be|stay|remain) (?:as )?(?:brief|concise|clear|short|succinct|precise|specific|polite|"
    r"helpful|accurate|warm|kind|direct|factual|honest|friendly|patient|professional|neutral|objective|"
    rf"respectful|encouraging|thorough|careful|detailed)\b{_REST}",
    r"use (?:(?:a|an|the|plain|simple|clear|formal|friendly|neutral|conversational|bullet|short|"
    rf"calm),? )*(?:language|english|words|tone|register|style|voice|points|sentences)\b{_REST}",
    rf"(?:end|finish|close) (?:with|without|by)\b{_REST}",
    rf"note ?(?:that|:) [^\n?]{{0,30}}\b(?:answer|response|reply|output)\b{_REST}",
    r"(?:use|in) (?:at most|no more than|fewer than|less than|under|exactly|about|up to) "
    rf"\w+ (?:words?|sentences?|lines?|paragraphs?|bullet points?)\b{_REST}",
    r"nothing else",
)
_WHO_AND_WHAT = (
    rf"{_YOU_ARE} (?:now )?(?:an? |the |my )?[^.!?\n]{{0,40}}\b"
    r"(?:assistant|expert|ai|agent|tutor|language model|chatbot|bot)\b[^.!?\n]{0,120}",
    rf"{_YOU_ARE} an? (?:helpful|friendly|knowledgeable|senior|careful|professional|experienced|"
    r"patient|expert|world[- ]class|highly)\b[^.!?\n]{0,120}",
    r"act as (?:an? )?[^.!?,\n]{0,60}",
    r"you have (?:no )?access to [^.!?\n]{0,120}",
    r"(?:here is|this is|here['\u2019]s) what i (?:need|want) to (?:know|ask)[^.!?\n]{0,40}",
    r"(?:you will|you['\u2019]ll) (?:receive|be asked|reply|answer|respond)\b[^.!?\n]{0,160}",
    r"read (?:the|this) (?:\w{1,12} ){0,2}(?:question|problem|message|query|request)\b"
    r"[^.?\n]{0,160}",
    r"quick (?:one|question)",
    r"(?:i will give you|i['\u2019]ll give you|you will (?:be given|get|see|receive)|you are given|"
    r"below (?:is|are)|here (?:is|are)|the following (?:is|are)) (?:an? |some |the |my )?"
    rf"(?:[\w-]{{1,15}} ){{0,4}}{_ASKED}\b[^.?\n]{{0,60}}",
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
    r"(?:answers?|response|output|solution|assistant|reply|a)|the (?:correct )?answer is|"
    r"instructions?|(?:output|answer|response) (?:format|requirements?|rules)|format|notes?|rules|"
    r"requirements|context[: ]+none)\]?[*\s]*:?[*\s]*|[-=*_]{3,}\s*"
    r"|<\|?(?:im_start|start_of_turn|assistant)\|?>\s*(?:assistant|model)?\s*"
)
_TAG = r"(?:question|query|input|problem|task|user|prompt|instructions?|message)"
_TAG_AFTER = re.compile(
    rf"\s*(?:</{_TAG}>|\[/inst\]|<\|?(?:im_end|end_of_turn|end|eot_id)\|?>"
    r"|\((?:please )?(?:answer|reply|respond|in) [^()\n]{1,80}\))\Z",
    re.IGNORECASE,
)
_ASKS_LABEL = (
    r"[#*>\[\s-]*(?:(?:the |your )?(?:(?:user|customer|student|visitor|member|client)"
    r"(?:['\u2019]s)?[ _])?"
    r"(?:question|instructions?|input|task|problem|prompt|query|exercise|message|request|goal)|"
    r"user|human|customer|student|visitor|q)\]?(?: ?\d{1,3})?"
    r"(?:[*\s]*[:\uff1a][*\s|]*|[*#\s]*\n)"
)
# What stands before a question on its own line.
_OPENING = re.compile(
    rf"{_ASKS_LABEL}"
    rf"|{_LEAD}(?:answer|solve|complete|respond to|consider|read|look at) "
    rf"(?:carefully )?(?:the|this|these)(?: following| next)?(?: [\w-]{{1,15}}){{0,2}} {_ASKED}\b"
    r"(?! using)[^.:?\n]{0,100}[.:\n]\s*"
    rf"|<{_TAG}>|\[inst\]|<\|?(?:im_start|start_of_turn|user)\|?>\s*(?:user\b)?\s*|[-=*_]{{3,}}\s*\n"
    r"|context:\s*(?:\([^()\n]{0,60}\)|none|n/a)\s*|<context>\s*</context>\s*",
)
_LABELLED = re.compile(rf"\n{_ASKS_LABEL}")
# What a sentence before a label says where it is part of a template.
_OF_TEMPLATE = re.compile(
    r"\b(?:answer|respond|reply|replies|response|question|instructions?|assistant|you are|"
    r"your task|context|json)\b"
    r"|^[\s>*-]*(?:be|keep|use|finish|end|never|do not|don['\u2019]t|avoid|note|if you|help|"
    r"act as|greet|read|think|write your|make sure|remember)\b"
)
_SENTENCE_END = re.compile(r"[.!?][\"')\u201d]*\s+|\n")


def unframed(text: str) -> str:
    """`text`, which is tidy (see `routers.onnx.render.tidy`), without the sentences of a template
    at its ends; `text` itself where nothing but a template would be left, or there is none."""
    ends = text if len(text) <= 2 * LOOK else f"{text[:LOOK]}\n{text[-LOOK:]}"
    small = ends.lower()
    if not any(sign in small for sign in _SIGNS):
        return text
    bare = _unquoted(_without_form(_without_opening(text)))
    return bare if _asks(bare) else text


def _small(text: str) -> str:
    """In small letters, with every character in its place: a few letters would become two."""
    small = text.lower()
    return small if len(small) == len(text) else "".join(c.lower()[0] for c in text)


def _asks(text: str) -> bool:
    """Whether something is left: two words, or a sign that is no letter."""
    return len(text.split(None, 2)) > 1 or (len(text) > 3 and not text.isalpha())


def _without_form(text: str) -> str:
    for _ in range(ROUNDS):
        text = text.rstrip()
        start = _last(text)
        block = _template(text)
        if block is not None:
            text = block
        elif start and _of_form(text[start:].lower()):
            text = text[:start]
        elif text.endswith((">", "]", ")")):
            tag = _TAG_AFTER.search(text, max(0, len(text) - SENTENCE))
            if tag is None or not tag.start():
                break
            text = text[: tag.start()]
        else:
            break
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
    elif text.endswith(">"):
        start = text.rfind(":\n<", max(0, len(text) - BLOCK)) + 1
    else:
        return None
    if start <= 0 or len(text) - start > BLOCK:
        return None
    before = text[:start].rstrip()
    said = before[_last(before) :].lower()
    return before if _of_form(said) else None


def _of_form(piece: str) -> bool:
    return any(kind.fullmatch(piece) for kind in (_FORM, _LABEL, _AS_JSON))


def _unquoted(text: str) -> str:
    """What stands between marks around all of it."""
    for mark in ('"""', "```"):
        if text.startswith(mark) and text.endswith(mark) and text.count(mark) == 2:
            return text[len(mark) : -len(mark)].strip()
    return text


def _labelled(head: str) -> int:
    """Where the question begins behind its label, if all that stands before it is of a template;
    else 0."""
    end = 0
    for found in _LABELLED.finditer(head):
        before = _SENTENCE_END.split(head[end : found.start()])
        if not all(_OF_TEMPLATE.search(said) for said in before if said.strip()):
            break
        end = found.end()
    return end


def _without_opening(text: str) -> str:
    start = _labelled(_small(text[: 2 * SENTENCE]))
    text = text[start:]
    for _ in range(ROUNDS):
        head = _small(text[: 2 * SENTENCE])
        found = _OPENING.match(head)
        end = found.end() if found else 0
        if not end:
            first = _SENTENCE_END.search(head, 0, SENTENCE)
            end = first.end() if first and _FORM.fullmatch(head[: first.end()].rstrip()) else 0
        if not end:
            break
        text = text[end:].lstrip()
    return text
