"""Colours of pictures of a run. Okabe and Ito's palette: told apart by colour-blind readers too."""

from azr_nemo.tasks.task import TaskType

COLOURS = {TaskType.DEDUCTION: "#0072B2", TaskType.ABDUCTION: "#D55E00", TaskType.INDUCTION: "#009E73"}
RUNS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#888888")  # a run each, where several are overlaid
PHASES = {
    "warm_start": "#999999", "seed": "#BBBBBB", "propose": "#0072B2", "estimate": "#56B4E9", "solve": "#009E73", "execute": "#F0E442",
    "update": "#D55E00", "refit": "#882255", "evaluate": "#E69F00", "save": "#CC79A7", "other": "#666666",
}  # fmt: skip
