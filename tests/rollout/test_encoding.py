"""What a model wrote is data: in a prompt no tokenizer makes a special token of it, and any other text keeps its tokens."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from azr_nemo.evaluation.templates import TEMPLATES
from azr_nemo.models import tiny
from azr_nemo.rollout.encoding import Encoder
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.marked import Marked, joined, marked, pieces, read, spans_of, template
from azr_nemo.tasks.task import PromptOptions, Task, TaskType

CHATML = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
LLAMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n"
)
# As in the tokenizers of Llama-3.1, Qwen2.5 (special or not; Qwen3's tags behind) and SmolLM2.
LLAMA = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
    "<|python_tag|>", *(f"<|reserved_special_token_{i}|>" for i in range(248)),
]  # fmt: skip
QWEN_SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>",
    "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
QWEN_PLAIN = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
    "<tool_response>", "</tool_response>", "<think>", "</think>",
]  # fmt: skip
SMOLLM = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>", "<gh_stars>", "<issue_start>",
    "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>", "<jupyter_script>",
    "<empty_output>",
]  # fmt: skip
CORPUS = [
    "def f(x):\n    return x + 1\n```python\n```\n```input\n'ab'\n```\n",
    "This is a conversation <think> </think> <answer>",
    "im_end fim_prefix",
]


def _trained(special_first: list[str], size: int = 420) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS * 3, trainers.BpeTrainer(vocab_size=size, special_tokens=special_first, initial_alphabet=alphabet, show_progress=False)
    )
    return made


def llama():
    made = _trained([])
    made.add_special_tokens(LLAMA)
    begin = "<|begin_of_text|>"
    made.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, made.token_to_id(begin))]),
    ])  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=begin, eos_token="<|eot_id|>", chat_template=LLAMA_CHAT)


def qwen():
    made = _trained([])
    made.add_special_tokens(QWEN_SPECIAL)
    made.add_tokens([AddedToken(word, normalized=False, special=False) for word in QWEN_PLAIN])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", chat_template=CHATML)


def smollm():  # its special tokens are in the vocabulary, from 0 on
    return PreTrainedTokenizerFast(
        tokenizer_object=_trained(SMOLLM), bos_token="<|im_start|>", eos_token="<|im_end|>", chat_template=CHATML
    )


def sentencepiece():  # Llama-2's kind: a unigram vocabulary that holds <s> and </s>, spaces as marks, a space put in front
    words = [
        ("<unk>", 0.0),
        ("<s>", 0.0),
        ("</s>", 0.0),
        ("[INST]", 0.0),
        ("\u2581", -2.0),
        *((chr(i), -3.0) for i in range(33, 127)),
        ("\n", -3.0),
    ]
    made = Tokenizer(models.Unigram(words, unk_id=0, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template="<s>{{ messages[0]['content'] }}</s>"
    )


TOKENIZERS = {
    "llama": (llama, LLAMA),
    "qwen": (qwen, QWEN_SPECIAL + QWEN_PLAIN),
    "smollm": (smollm, SMOLLM),
    "sentencepiece": (sentencepiece, ["<s>", "</s>"]),
}


@cache
def encoder(name: str) -> Encoder:
    return Encoder(TOKENIZERS[name][0]())


def steering(made: Encoder, ids: list[int]) -> list[str]:
    """The special tokens among the ids."""
    tokens = next(tokens for name, (_, tokens) in TOKENIZERS.items() if encoder(name) is made)
    known = {made.tokenizer.convert_tokens_to_ids(token): token for token in tokens}
    return [known[id] for id in ids if id in known]


def prompts(token: str) -> list[str]:
    """All prompts of self-play, with the token in every text that a model can have written."""
    program, text = f"def f(x):  # {token}\n    return '{token}' + x", f"'a{token}b{token}'"
    found: list[str] = []
    for style in ("r1", "completion"):
        options = PromptOptions(style, pairs=2, functions=(program.replace("def f", "def g_0"),))
        for kind in TaskType:
            task = Task(kind, program, (text,) * 2, (text,) * 2, f"Say {token}.")
            found += [KINDS[kind].propose_prompt([task], options).full, KINDS[kind].solve_prompt(task, options).full]
            answer = {TaskType.INDUCTION: program}.get(kind, text)
            found.append(KINDS[kind].answer_text(answer, options))
    return found


CASES = [
    (name, token) for name, (_, tokens) in TOKENIZERS.items() for token in (tokens if len(tokens) < 60 else [*tokens[:10], tokens[-1]])
]


@pytest.mark.parametrize(("name", "token"), CASES)
def test_a_special_token_in_what_a_model_wrote_stays_its_characters(name, token):
    made = encoder(name)
    own = steering(made, made.encode(template("")))
    for text in prompts(token):
        assert token in text
        templates = [piece for piece, is_template in pieces(text) if is_template]
        stated = [match for piece in templates for match in made._pattern.findall(piece)]
        ids = made.encode(text)
        assert steering(made, ids) == own + stated
        if name != "sentencepiece":
            assert made.tokenizer.decode(ids[len(own) :], clean_up_tokenization_spaces=False) == text
        assert steering(made, made.encode_response(text)) == [*stated, made.tokenizer.eos_token]
        assert token in steering(made, made.tokenizer(str(text))["input_ids"]), "the tokenizer itself takes it for the token"


@pytest.mark.parametrize("name", ["llama", "qwen", "smollm"])
def test_all_of_a_tokenizer_s_special_tokens_at_once_stay_characters(name):
    made, text = encoder(name), " ".join(TOKENIZERS[name][1])
    for prompt in prompts(text)[:2]:
        assert made.tokenizer.decode(made.encode(prompt), skip_special_tokens=True) == prompt


def messages(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


@pytest.mark.parametrize("name", ["llama", "qwen", "smollm", "sentencepiece"])
def test_a_chat_template_makes_its_tokens_and_the_question_none(name):
    made = encoder(name)
    honest = TEMPLATES["chat"]("What is 1 + 1?", made.tokenizer).full
    assert honest == made.tokenizer.apply_chat_template(messages("What is 1 + 1?"), tokenize=False, add_generation_prompt=True)
    begins = bool(made.tokenizer.bos_token) and honest.startswith(made.tokenizer.bos_token)
    assert made.encode(honest) == made.tokenizer(str(honest), add_special_tokens=not begins)["input_ids"]
    for token in TOKENIZERS[name][1][:20]:
        asked = TEMPLATES["chat"](f"  {token} What is 1 + 1? {token}\n", made.tokenizer).full
        assert steering(made, made.encode(asked)) == steering(made, made.encode(honest))
        raw = TEMPLATES["raw"](f"{token} 1", made.tokenizer).full
        assert steering(made, made.encode(raw)) == steering(made, made.encode("1"))


TEXTS = st.text(max_size=30) | st.lists(
    st.sampled_from(["def f(x):", " ", "\n", "```", "<", "|>", "é", "1", "<|im_", "end|>", "\t\t"])
).map("".join)


@pytest.mark.parametrize("name", ["llama", "qwen", "smollm", "sentencepiece"])
@settings(max_examples=40)
@given(parts=st.lists(st.tuples(TEXTS, st.booleans()), max_size=4))
def test_any_other_text_is_encoded_as_the_tokenizer_does_and_so_does_the_copy(name, parts):
    made = encoder(name)
    text = joined(*(template(part) if own else part for part, own in parts))
    tokens = TOKENIZERS[name][1]
    if not any(token in text for token in tokens):
        assert made.encode(text) == made.tokenizer(str(text))["input_ids"]
        assert made._apart(text) == made.tokenizer(str(text), add_special_tokens=False)["input_ids"]
        with_token = joined(text, template(tokens[0]), text)
        assert made._apart(with_token) == made.tokenizer(str(with_token), add_special_tokens=False)["input_ids"]


def test_the_pieces_of_the_tiny_tokenizer_are_no_special_tokens():
    made = Encoder(tiny.tokenizer())
    text = "```python\ndef f(x):\n    return x<eos>\n```\n"
    ids = made.encode(text)
    assert made.tokenizer.eos_token_id not in ids
    spelled = made.tokenizer("<", add_special_tokens=False)["input_ids"] + [made.tokenizer.convert_tokens_to_ids(c) for c in "eos>"]
    before, after = (made.tokenizer(part, add_special_tokens=False)["input_ids"] for part in text.split("<eos>"))
    assert ids == before + spelled + after


@pytest.mark.parametrize("name", ["llama", "qwen", "smollm"])
def test_a_token_that_template_and_data_make_together_is_none(name):
    made, token = encoder(name), TOKENIZERS[name][1][1]
    for cut in range(1, len(token)):
        for text in (joined(template(token[:cut]), token[cut:]), joined(token[:cut], template(token[cut:]))):
            assert token not in steering(made, made.encode(text))


def test_a_begin_token_in_data_is_not_the_template_s():
    made, begin = encoder("llama"), "<|begin_of_text|>"
    assert steering(made, made.encode(f"{begin}1")) == [begin]
    assert steering(made, made.encode(joined(template(begin), "1"))) == [begin]
    assert len(made.encode(f"{begin}1")) > len(made.encode(joined(template(begin), "1")))


def test_half_a_character_is_encoded_as_its_escape():
    made = encoder("qwen")
    text = joined(template("<|im_start|>"), "a\ud800<|im_end|>")
    assert made.tokenizer.decode(made.encode(text)) == "<|im_start|>a\\ud800<|im_end|>"
    assert steering(made, made.encode(text)) == ["<|im_start|>"]


def shown(text: str) -> str:
    """Without the spaces, which may be either's."""
    return "".join(text.split())


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text(max_size=5), st.booleans()), max_size=6))
def test_marks_survive_joining_rendering_and_stripping(parts):
    text = joined(*(template(part) if own else part for part, own in parts))
    assert text == "".join(part for part, _ in parts)
    assert joined(*(template(piece) if own else piece for piece, own in pieces(text))).spans == text.spans
    again = read(f"<{marked(text)}>")
    assert again == f"<{text}>"
    data = "".join(piece for piece, own in pieces(text) if not own)
    assert shown("".join(piece for piece, own in pieces(again) if not own)) == shown(data)
    assert text.strip() == str(text).strip()
    assert shown("".join(piece for piece, own in pieces(text.strip()) if not own)) == shown(data)


def test_what_is_not_said_to_be_a_template_s_is_data():
    whole = template("<s>")
    assert spans_of("<s>") == spans_of(whole + "<s>") == spans_of(whole.upper()) == ()
    assert pieces(Marked("abc", [(1, 2)])) == [("a", False), ("b", True), ("c", False)]
