"""The original's style, for models that can reason: a conversation, thoughts and answer between tags."""

from azr_nemo.tasks.marked import joined, template
from azr_nemo.tasks.prompting import THINK, render, think_answer
from azr_nemo.tasks.task import PromptOptions, PromptText, Refusal


class R1:
    """Answers are fenced blocks between the answer tags."""

    def prompt(self, name: str, options: PromptOptions, **values: object) -> PromptText:
        body = render(f"{name}.r1.j2", options=options, **values)
        return PromptText(render("conversation.r1.j2", request=body.strip()), THINK)

    def read(self, name: str, text: str) -> str | Refusal:
        answer = think_answer(text)
        return Refusal("format", "the response is not of the form <think>...</think> <answer>...</answer>") if answer is None else answer

    def write(self, name: str, body: str, options: PromptOptions) -> str:
        if "</answer>" in body:
            raise ValueError("this text holds </answer> and cannot be written in the R1 style")
        return joined(template(" </think>\n<answer>\n"), body, template("</answer>"))
