"""The short style of a warm-started model: fenced blocks alone, the first of which the prompt opens."""

from azr_nemo.tasks.fences import fence, tagged
from azr_nemo.tasks.marked import template
from azr_nemo.tasks.prompting import render
from azr_nemo.tasks.task import PromptOptions, PromptText, Refusal

OPENED = {
    "propose_triplet": "python",
    "propose_induction": "input",
    "solve_deduction": "output",
    "solve_abduction": "input",
    "solve_induction": "python",
}


class Completion:
    """The end token ends an answer. What a solver writes after its first block is not read."""

    def prompt(self, name: str, options: PromptOptions, **values: object) -> PromptText:
        return PromptText(render(f"{name}.completion.j2", options=options, **values), template(f"```{OPENED[name]}\n"))

    def read(self, name: str, text: str) -> str | Refusal:
        if name.startswith("propose"):
            return text
        return "".join(fence(OPENED[name], answer) for answer in tagged(text, OPENED[name])[:1])

    def write(self, name: str, body: str, options: PromptOptions) -> str:
        prefill = f"```{OPENED[name]}\n"
        if not body.startswith(prefill):
            raise ValueError("this text holds fences of its own and cannot be written in the completion style")
        return body.removeprefix(prefill)
