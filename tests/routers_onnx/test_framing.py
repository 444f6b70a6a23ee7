"""The same question in any template is the same text; what is asked is never taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routers.evals.robustness import TEMPLATES
from routers.onnx.framing import unframed
from routers.onnx.render import plain, render, tidy
from routers.types import Query, Turn

QUESTIONS = (
    "what's the weather like in oslo",
    "How many apples are left if 7 of 19 are eaten?",
    "Write a Python function that reverses a string.",
    "Which gas do plants take in?\nA. Oxygen\nB. Carbon dioxide\nC. Helium\nD. Argon",
)
OTHERS = (
    "You are an AI tutor. Help the student with the question below.\n\n{}",
    "I will give you a question. Think about it and give the final answer at the end.\n\n"
    "Question: {}",
    "{}\n\nGive only the letter of the correct option.",
    '{}\nPlease provide the final answer in the format "Answer: X".',
    '{}\n\nOutput format:\n```json\n{{"answer": "<your answer>"}}\n```',
    "{}\n\nReturn your answer as a JSON object with the keys `answer` and `confidence`. Do not "
    "output anything else.",
    "[INST] {} [/INST]",
    "### Human: {}\n### Assistant:",
    "<question>\n{}\n</question>\n\nThink inside <thinking> tags and put the answer inside "
    "<answer> tags.",
    "Task: {}\n\nAnswer briefly.",
    "Answer the question based on your knowledge. If you don't know, say \"I don't know\".\n\n{}",
    "{}\n\nFirst reason about the problem, then write the answer on the last line.",
    "Solve this problem carefully, showing all steps: {}",
    "User question: {}\n\nYour response must be valid JSON matching this schema:\n"
    '{{\n"answer": string,\n"steps": string[]\n}}',
    "The following is a multiple choice question. Choose the best answer.\n\n{}\n\n"
    "Answer with a single letter (A, B, C, or D).",
    "{}\n\nTo answer, think step by step. When you are done, write the answer after ####.",
    "{}\n\nUse plain English. Limit your answer to two paragraphs.",
    "You're a senior customer support agent. Answer politely and never make up facts.\n\n"
    "Customer: {}",
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant",
    "<question>\n{}\n</question>\n\nAnswer the question above.",
    "Answer the user's query below as accurately as you can.\n\n### Query\n{}",
    "Be warm and professional, and keep your reply under 120 words. If you do not know something, "
    "say so.\n\nCustomer message:\n{}",
    "Use the following pieces of context to answer the question at the end.\n<context>\n"
    "</context>\n\nQuestion: {}",
    'You will receive a user goal and must reply with one JSON object.\n\nUser goal: """{}"""',
    "{} (answer in one word if possible)",
    "Act as a senior software engineer. Be direct.\n\nHere is what I need to know:\n{}",
    "{}\n\n---\nFormat your reply as XML:\n<answer>\n...\n</answer>",
    "I hope you're doing well. I was wondering if you could help me with something: {}",
)


def one(text: str) -> str:
    return render(Query((Turn("user", text),))).text


@pytest.mark.parametrize("template", [*TEMPLATES, *OTHERS], ids=range(len(TEMPLATES + OTHERS)))
@pytest.mark.parametrize("question", QUESTIONS, ids=["chat", "sum", "code", "choice"])
def test_a_question_is_read_the_same_in_a_template(template: str, question: str) -> None:
    assert one(template.format(question)) == one(question)


@pytest.mark.parametrize(
    "text",
    [
        "Explain how to bake bread step by step.",
        "Reply to this email politely: I want my money back.",
        "You are a detective in Paris. Describe the scene.",
        "Summarise the text below in under 50 words.\nThe cat sat on the mat.",
        "Translate to French: answer the following question: who are you?",
        "I have an API for users. Generate a JSON schema for it.",
        "Create a data set in JSON with two fields.\nUse towns in Norway.",
        "Solve the task using C++ and Qt:\nread a table from a file",
        "Our users ask for shorter replies. Why might that be?",
        "My code prints this:\n```\n{'answer': 3}\n```",
        "What does this mean?\n{\n'json': 1\n}",
        "A student has five pens and buys two more.\nQuestion: How many are there now?",
        "Tom will be twice as old as Ann in four years.\nQuestion: How old is Tom?",
        "Can you tell me about Rome. I want to know who built it.",
        "Loop over the rows of the table. Do not use await.",
        "Find all words of at most five letters. They stand in the list <list>.",
    ],
)
def test_what_is_asked_stays(text: str) -> None:
    assert unframed(text) == text


@pytest.mark.parametrize(
    "text", ["Answer", "Think step by step.", "Answer in JSON.", "Question: 2+2\nAnswer:", "### Q:"]
)
def test_a_template_without_a_question_is_read_as_it_is(text: str) -> None:
    assert plain(tidy(text)) == text


def test_letters_that_grow_when_they_are_small_move_no_cut() -> None:
    question = "\u0130zmir or \u0130stanbul: which is larger?"
    assert unframed(f"Be brief, \u0130pek.\nQuestion: {question}\nAnswer:") == question


def test_a_turn_that_only_asks_for_another_form_is_read_with_the_task() -> None:
    turns = (
        Turn("user", "Prove that there are infinitely many primes."),
        Turn("assistant", "Suppose there were finitely many."),
        Turn("user", "Answer in JSON."),
    )
    assert "Prove that there are" in render(Query(turns)).text


@given(st.text(st.sampled_from("aA.:?!\n#<>`{}[]/1 ") | st.characters(), max_size=400))
def test_what_is_left_of_any_text_is_a_part_of_it(text: str) -> None:
    clean = tidy(text)
    assert unframed(clean) in clean
