"""The styles that models know: where their prompts end, where their answers stop, and what is read of an answer."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from azr_nemo.errors import UserError
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.fences import fence
from azr_nemo.tasks.styles import STYLES
from azr_nemo.tasks.styles.chat import SYSTEM, chat_frame
from azr_nemo.tasks.task import PromptOptions, PromptText, Proposal, Refusal, Task, TaskType

CODE = PromptOptions(style="code", pairs=4)
PROGRAM = "def f(x, y=2):\n    if x:\n        return [x]\n\n    return {'a': (y,)}"
# Answers that begin in as many ways as there are kinds of values.
VALUES = ["'abc'", "-1", "12", "(1, 2)", "[[1], {}]", "{'a': None}", "True", "''", '"it\'s"', "b'x'", "1.5e-07"]
WORDED = [replace(CODE, wording=wording) for wording in range(STYLES["code"].wordings)]
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def tasks() -> list[Task]:
    made = [Task(kind, PROGRAM, (value,), (value,)) for kind in (TaskType.DEDUCTION, TaskType.ABDUCTION) for value in VALUES]
    return [*made, Task(TaskType.INDUCTION, PROGRAM, tuple(VALUES[:4]), tuple(VALUES[4:8]))]


def said(task: Task, options: PromptOptions) -> list[tuple[PromptText, str]]:
    """Both roles' prompts about a task, each with its ideal answer."""
    kind = KINDS[task.type]
    proposal = Proposal(task.type, task.program, task.inputs)
    return [
        (kind.solve_prompt(task, options), kind.answer_text(kind.known_answer(task), options)),
        (kind.propose_prompt([task], options), kind.proposal_text(proposal, options)),
    ]


def in_all_wordings(task: Task) -> list[tuple[PromptText, str]]:
    """Both roles' prompts in the code style, the solver's in each of its wordings."""
    return [pair for options in WORDED for pair in said(task, options)]


def split(*parts) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


# How the tokenizers of the families in use split a text before they merge: GPT-2, SmolLM2, Qwen2 and Llama 3, and SentencePiece.
SPLITS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm2": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    "qwen2": split(pre_tokenizers.Split(Regex(QWEN), "isolated")),
    "llama3": split(pre_tokenizers.Split(Regex(QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)), "isolated")),
    "sentencepiece": pre_tokenizers.Metaspace(prepend_scheme="never"),
}


@pytest.fixture(scope="module", params=SPLITS)
def tokenizer(request) -> Tokenizer:
    """Trained on nothing but these prompts with their answers, until nothing is left to merge: what can be one token is one."""
    made = Tokenizer(models.BPE(byte_fallback=request.param == "sentencepiece"))
    made.pre_tokenizer = SPLITS[request.param]
    if request.param != "sentencepiece":
        made.decoder = decoders.ByteLevel()
    made.normalizer = normalizers.NFC()
    texts = [prompt.full + answer for task in tasks() for prompt, answer in in_all_wordings(task)]
    trainer = trainers.BpeTrainer(vocab_size=20_000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator(texts * 3, trainer)
    return made


def test_a_prompt_ends_where_a_token_does_whatever_the_tokenizer(tokenizer):
    for task in tasks():
        for prompt, answer in in_all_wordings(task):
            before, whole = tokenizer.encode(prompt.full).ids, tokenizer.encode(prompt.full + answer).ids
            assert whole == before + tokenizer.encode(answer).ids, (prompt.full[-20:], answer[:20])


@pytest.mark.parametrize("task", tasks()[::6], ids=str)
def test_wordings_differ_say_the_same_and_end_alike(task):
    prompts = [KINDS[task.type].solve_prompt(task, options) for options in WORDED]
    assert len({prompt.full for prompt in prompts}) == len(WORDED)
    assert len({(prompt.full[-12:], prompt.stop) for prompt in prompts if task.type is not TaskType.INDUCTION}) <= 1
    shown = task.outputs if task.type is TaskType.ABDUCTION else task.inputs
    assert all(text in prompt.full for prompt in prompts for text in shown)


def test_a_prompt_that_ends_inside_a_token_would_be_seen(tokenizer):
    """`f(` is such a prompt, where what follows is a string."""
    pieces = [tokenizer.encode(text).ids for text in ("assert 1 == f(", "'abc')\n", "assert 1 == f('abc')\n")]
    assert pieces[0] + pieces[1] != pieces[2]


@pytest.mark.parametrize("task", tasks(), ids=str)
def test_an_ideal_answer_ends_with_its_first_stop(task):
    for prompt, answer in in_all_wordings(task):
        ends = [answer.find(stop) + len(stop) for stop in prompt.stop if stop in answer]
        assert min(ends) == len(answer)
        assert answer.startswith(" ")
        assert not prompt.full[-1].isspace()


@pytest.mark.parametrize("style", ["chat", "chat_thoughts", "r1", "completion"])
def test_the_other_styles_are_ended_by_the_models_own_end_token(style):
    assert all(prompt.stop == () for task in tasks() for prompt, _ in said(task, PromptOptions(style=style, pairs=4)))


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (" 'abc'\n", "'abc'"),
        (" 'a # b'  # because\n", "'a # b'"),
        (" [1, 2], 'a message'\n", "[1, 2]"),
        (" (1, 2)\n", "(1, 2)"),
        ("7", "7"),
        (" 1 == 1\n", "1 == 1"),
        (" [1, 2\n", "[1, 2"),
        ("", ""),
    ],
)
def test_a_deduction_answer_is_what_the_assert_says(response, answer):
    assert KINDS[TaskType.DEDUCTION].parse_answer(response, CODE) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (" f('abc')\n", "'abc'"),
        (" f(1, y=(2))  # found\n", "1, y=(2)"),
        (" f( ')' ), 'a message'\n", "')'"),
        (" f('é', 'b')\n", "'é', 'b'"),
        (" g(1)\n", None),
        (" f(1) + 1\n", None),
        (" f(1) == 2 == f(3)\n", None),
        (" f(1\n", None),
        (" 'abc'\n", None),
        (" f(1); f(2)\n", None),
    ],
)
def test_an_abduction_answer_is_one_call(response, answer):
    read = KINDS[TaskType.ABDUCTION].parse_answer(response, CODE)
    assert read == answer if answer is not None else isinstance(read, Refusal)


@pytest.mark.parametrize(
    ("response", "inputs", "reason"),
    [
        (" f(x):\n    return x\n\nf(3)\n\n# puzzle", ("3",), ""),
        (" f(x):\n    return x\n\nf(3)", ("3",), ""),
        (" f(x):\n    return x\nf(\n    [1,\n     2],\n)\n\n#", ("[1,\n     2],",), ""),
        (" f(x):\n    return x\n\nf(3) == 3\n\nf(4)\n\n#", ("3",), ""),
        (" f(x):\n    return (\n    x\n)\n\nf('\\n')\n#", ("'\\n'",), ""),
        (" f(x):\n    return x\n\nprint", None, "format"),
        (" f(x):\n    return x\n", None, "format"),
        (" g(x):\n    return x\n\nf(3)\n#", None, "no_entry"),
        (" f(x) return x\n\nf(3)\n#", None, "syntax"),
    ],
)
def test_a_proposal_is_a_function_and_the_call_after_it(response, inputs, reason):
    read = KINDS[TaskType.DEDUCTION].parse_proposal("def" + response, [], CODE)
    assert (read.inputs, "") == (inputs, reason) if inputs else read.reason == reason


def test_proposed_inputs_are_those_of_the_numbered_calls_in_any_style_of_spaces():
    task = Task(TaskType.INDUCTION, PROGRAM, ("1",), ("1",))
    read = KINDS[TaskType.INDUCTION].parse_proposal(
        "y1 = f(1)\ny2=f('a', y=3)  # two\ny3 = g(1)\nz = f(9)\ny4 = f([])\ny5 = f(0)\ny6", [task], CODE
    )
    assert read.inputs == ("1", "'a', y=3", "[]", "0")
    assert KINDS[TaskType.INDUCTION].parse_proposal("y1 = f(1)\n\nprint", [task], CODE).reason == "format"


def test_a_function_ends_at_the_first_line_that_is_not_indented():
    text = "def f(\n    x,\n) -> int:\n    # a comment\n\n    return x\n\nassert f(1) == 1"
    assert KINDS[TaskType.INDUCTION].parse_answer(text, CODE) == text.removesuffix("\n\nassert f(1) == 1")


@pytest.mark.parametrize("thoughts", [False, True])
@pytest.mark.parametrize(
    ("kind", "value", "answer"),
    [
        (TaskType.DEDUCTION, "[1, 2]", "[1, 2]"),
        (TaskType.DEDUCTION, "`'a'`", "'a'"),
        (TaskType.ABDUCTION, "f([1, 2], y=3)", "[1, 2], y=3"),
        (TaskType.ABDUCTION, "'a'", None),
    ],
)
def test_a_chat_answer_is_a_value_alone_or_the_last_result(thoughts, kind, value, answer):
    options = PromptOptions(style="chat_thoughts" if thoughts else "chat")
    response = f"First x is 1.\nRESULT: 0\nNo.\nRESULT: {value}\n" if thoughts else value
    read = KINDS[kind].parse_answer(response, options)
    assert read == answer if answer is not None else isinstance(read, Refusal)
    assert isinstance(KINDS[kind].parse_answer("It returns\n[1, 2]", options), Refusal)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Therefore the output is `[]`, i.e. `RESULT: []`", "[]"),  # as Qwen2.5-Coder-0.5B says it in two answers of three
        ("It is `RESULT: 'UppEr'`, i.e. `f('UppEr', 0) == 'UppEr'`", "'UppEr'"),
        ("`RESULT: 'a`b'`.", "'a`b'"),
        ("`RESULT: no literal` it is", "no literal"),
        ("`RESULT: 7", "7"),
        ("```RESULT: 7\n```", "7"),
        ("**RESULT:** [1, 2]\n", "[1, 2]"),
        ("**RESULT: `7`**\n\n", "7"),
        ("**`RESULT: 7`**", "7"),
        ("RESULT:\n7", "7"),
        ("RESULT: `7` as before", "7"),
    ],
)
def test_marks_around_a_result_are_no_part_of_it(said, answer):
    assert KINDS[TaskType.DEDUCTION].parse_answer(said, PromptOptions(style="chat_thoughts")) == answer


def test_a_block_around_a_chat_answer_is_no_part_of_it():
    assert KINDS[TaskType.DEDUCTION].parse_answer(fence("python", "[1]"), PromptOptions(style="chat")) == "[1]"


def chat_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), chat_template=template)


def test_a_chat_prompt_is_what_the_tokenizers_own_template_makes_of_the_messages():
    template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    tokenizer = chat_tokenizer(template)
    options = PromptOptions(style="chat", frame=chat_frame(tokenizer))
    prompt = KINDS[TaskType.DEDUCTION].solve_prompt(Task(TaskType.DEDUCTION, PROGRAM, ("1",), ("[1]",)), options)
    request = prompt.text.split("<|user|>")[1].split("<|end|>")[0]
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": request}]
    assert prompt.full == tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert PROGRAM in request


def test_a_template_without_a_system_role_gets_one_message():
    template = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}[{{ m.content }}]{% endfor %}"
    assert chat_frame(chat_tokenizer(template)) == ("[", "\n\n", "]")


@pytest.mark.parametrize(("template", "sentence"), [(None, "has no chat template"), ("{{ messages[0].content | upper }}", "does not keep")])
def test_a_tokenizer_that_cannot_chat_is_named(template, sentence):
    with pytest.raises(UserError, match=sentence):
        chat_frame(chat_tokenizer(template))


@given(text=st.text(alphabet="def f(x):\n  return'#=y1_`}"))
def test_no_answer_of_these_signs_breaks_a_reader(text):
    for options in (PromptOptions(style=style, pairs=2) for style in STYLES):
        for kind in KINDS.values():
            assert isinstance(kind.parse_answer(text, options), str | Refusal)
            assert isinstance(kind.parse_proposal(text, [Task(kind.type, PROGRAM, ("1",), ("1",))], options), Proposal | Refusal)
