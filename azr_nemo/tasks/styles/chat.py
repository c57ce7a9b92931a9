"""A chat model asked through its tokenizer's own chat template, with short answers or with thoughts before them.

A program comes as one python block, a proposal's call as its last line; a value or a call alone or, after thoughts, on a last line `RESULT: ...`.
"""

import re
from contextlib import suppress
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.tasks.fences import fence, tagged
from azr_nemo.tasks.marked import joined, template
from azr_nemo.tasks.parsing import PARSE_ERRORS, parsed
from azr_nemo.tasks.prompting import render
from azr_nemo.tasks.styles.code import call_arguments, proposed
from azr_nemo.tasks.task import PromptOptions, PromptText, Refusal

SYSTEM = "You are an expert Python programmer. You answer exactly in the form that is asked for."
RESULT = "RESULT:"
SYSTEM_MARK, USER_MARK = "{{the system message}}", "{{the user message}}"


def chat_frame(tokenizer: Any) -> tuple[str, str, str]:
    """What the tokenizer's chat template writes before the system message, between it and the user's, and after that. Raises UserError when it has
    no template, or one that changes what the messages say."""
    if not getattr(tokenizer, "chat_template", None):
        raise UserError("selfplay.prompt_style=chat, but the model's tokenizer has no chat template: choose code, or another model")
    messages = [{"role": "system", "content": SYSTEM_MARK}, {"role": "user", "content": USER_MARK}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception:  # whatever a template raises; some know no system message
        one = [{"role": "user", "content": f"{SYSTEM_MARK}\n\n{USER_MARK}"}]
        text = tokenizer.apply_chat_template(one, tokenize=False, add_generation_prompt=True)
    if text.count(SYSTEM_MARK) != 1 or text.count(USER_MARK) != 1:
        raise UserError(
            "the chat template of the model's tokenizer does not keep the messages as they are: choose selfplay.prompt_style=code"
        )
    before, rest = text.split(SYSTEM_MARK)
    between, after = rest.split(USER_MARK)
    return before, between, after


class Chat:
    """The model's end tokens end an answer."""

    def __init__(self, thoughts: bool):
        self.thoughts = thoughts

    def prompt(self, name: str, options: PromptOptions, **values: object) -> PromptText:
        before, between, after = options.frame
        request = render(f"{name}.chat.j2", options=options, thoughts=self.thoughts, **values).strip()
        return PromptText(joined(template(before), SYSTEM, template(between), request, template(after)))

    def read(self, name: str, text: str) -> str | Refusal:
        if name in ("solve_deduction", "solve_abduction"):
            value = self._value(text)
            if isinstance(value, Refusal) or name == "solve_deduction":
                return value if isinstance(value, Refusal) else fence("output", value)
            arguments = call_arguments(value)
            return Refusal("format", "the answer is not a call of f") if arguments is None else fence("input", arguments)
        blocks = tagged(text, "python")
        if not blocks:
            return Refusal("format", "there is no closed python fence")
        if name == "solve_induction":
            return fence("python", blocks[-1])
        if name == "propose_triplet":
            return proposed(blocks[-1])
        calls = [call_arguments(line) for line in blocks[-1].split("\n")]
        return "".join(fence("input", call) for call in calls if call is not None)

    def _value(self, text: str) -> str | Refusal:
        """The value after the last RESULT; without thoughts the only line that there is, in a block or not. Backticks around it are no part of it."""
        if self.thoughts:
            before, found, said = text.rpartition(RESULT)
            if not found:
                return Refusal("format", f"there is no line {RESULT}")
            line = said.strip("* \n").split("\n")[0].rstrip("* ")  # `RESULT:` may be emphasised, and stand in backticks with its value
            text = f"`{line}" if before.endswith("`") and "`" in line else line
        lines = [line for line in text.strip().split("\n") if line.strip() and not re.fullmatch(r"\s*`{3,}\w*\s*", line)]
        if len(lines) != 1:
            return Refusal("format", f"the answer has {len(lines)} lines")
        return _bare(lines[0].strip())

    def write(self, name: str, body: str, options: PromptOptions) -> str:
        programs, inputs, outputs = (tagged(body, tag) for tag in ("python", "input", "output"))
        match name:
            case "solve_deduction" | "solve_abduction":
                value = outputs[0] if name == "solve_deduction" else f"f({inputs[0]})"
                said = f"{RESULT} {value}" if self.thoughts else value
                if "\n" in value:
                    raise ValueError("this text has several lines and cannot be written in the chat style")
            case "solve_induction":
                said = fence("python", programs[0])
            case "propose_triplet":
                said = fence("python", f"{programs[0]}\n\nf({inputs[0]})")
            case _:
                said = fence("python", "\n".join(f"f({text})" for text in inputs))
        return said.rstrip("\n")


def _bare(line: str) -> str:
    """What stands between the backticks that a line begins with and the next ones that leave an expression."""
    ends = [found.start() for found in re.finditer("`", line) if found.start()] if line.startswith("`") else []
    for end in ends:
        with suppress(*PARSE_ERRORS):
            parsed(line[1:end].strip(), "eval")
            return line[1:end].strip()
    return line[1 : ends[-1]].strip() if ends else line
