"""How prompts are written and answers are read, as the settings have it."""

from azr_nemo.settings.schema import SelfPlayConfig
from azr_nemo.tasks.task import PromptOptions


def options_of(selfplay: SelfPlayConfig, frame: tuple[str, str, str]) -> PromptOptions:
    """The options of all prompts. frame: what a chat template puts around the two messages (azr_nemo.tasks.styles.chat)."""
    return PromptOptions(
        selfplay.prompt_style,
        selfplay.induction_pairs,
        tuple(selfplay.imports),
        strip_comments=selfplay.strip_comments,
        strip_globals=selfplay.strip_globals,
        strip_prints=selfplay.strip_prints,
        rename_entry=selfplay.rename_entry,
        frame=frame,
    )
