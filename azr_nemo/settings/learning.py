"""What a run learns from and how: rewards, advantages, the loss and its optimizer, the self-play step. Defaults are the paper's."""

from dataclasses import dataclass, field

from azr_nemo.settings.field import section, setting

FAR = 1000.0  # no reward lies further from 0


@dataclass
class IntrinsicConfig:
    """One intrinsic reward of the proposer: min(coef * value, max). A name that does not come with the project is the user's own and needs a target."""

    coef: float = setting(0.0, "the reward is min(coef * value, max); 0: off", least=-FAR, most=FAR)
    max: float = setting(0.5, "the most that it gives", least=-FAR, most=FAR)
    hierarchical: bool = setting(False, "of the diversities: compare values within their Python type")
    target: str = setting("", "package.function of the user's own: (task, references, history) -> float")


INTRINSIC = ("complexity", "edit_distance", "halstead", "answer_diversity", "input_diversity", "output_diversity", "shape_novelty")


@dataclass
class RewardConfig:
    right: float = setting(1.0, "of a right answer", least=-FAR, most=FAR)
    wrong: float = setting(-0.5, "of a wrong one", least=-FAR, most=FAR)
    malformed: float = setting(-1.0, "of an answer that cannot be read", least=-FAR, most=FAR)
    invalid: float = setting(-1.0, "of a proposal that cannot be read, does not run or is not allowed", least=-FAR, most=FAR)
    unlearnable: float = setting(-0.5, "of a proposal that every or no estimate solved; 0 in the paper's text", least=-FAR, most=FAR)
    learnability: str = setting(
        "one_minus_p",
        "of a proposal solved at the rate p: one_minus_p (paper) or four_p_one_minus_p",
        choices=("one_minus_p", "four_p_one_minus_p"),
    )
    duplicate: float = setting(-0.5, "of a valid proposal that is in the buffer already", least=-FAR, most=FAR)
    induction: str = setting("binary", "binary: all hidden pairs or nothing; fraction: the share of them", choices=("binary", "fraction"))
    echo: str = setting(
        "right",
        "what an input is that has the output among its arguments, which needs no look at the program: right, where it gives the output; wrong; or "
        "left_out, neither trained on nor right",
        choices=("right", "wrong", "left_out"),
    )
    # What learnable tasks earn beside their learnability.
    intrinsic: dict[str, IntrinsicConfig] = field(default_factory=lambda: {name: IntrinsicConfig() for name in INTRINSIC})
    intrinsic_combine: str = setting(
        "sum",
        "with learnability r and intrinsic rewards c: sum, r + Σc; multiply, r * Πc; sum_multiply, r + Πc; multiply_sum, r * Σc",
        registered="combinations",
    )


@dataclass
class AdvantageConfig:
    name: str = setting("trr_plus_plus", "the estimator (docs/algorithm.md)", registered="advantage estimators")
    weighting: str = setting(
        "token", "of trr_plus_plus and reinforce_plus_plus: token (reference) or sequence", choices=("token", "sequence")
    )
    easy_success_weight: float = setting(
        1.0, "scales the advantage of a right answer where more than half of the answers to its task are right", least=0, most=1
    )
    failure_weight: float = setting(
        1.0,
        "scales the advantage of an answer that earned less than those it is compared with; 0: right answers alone teach",
        least=0,
        most=1,
    )
    decay: float = setting(0.95, "of role_baseline's moving averages", least=0, below=1)
    filter_zero_variance: bool = setting(False, "leave out rows without an advantage: all that they were compared with earned the same")


@dataclass
class OptimConfig:
    loss: str = setting("ppo", "the policy loss of a token (docs/algorithm.md)", registered="policy losses")
    aggregation: str = setting("token_mean", "from tokens to a batch: every token alike, or every response", registered="aggregations")
    mini_batches: int = setting(1, "optimizer steps that a step's rows are split into; with one, ratios are 1 and no clip bites", least=1)
    lr: float = setting(1e-6, "learning rate of AdamW", least=0)
    weight_decay: float = setting(0.01, "of AdamW, times the learning rate", least=0)
    beta1: float = setting(0.9, "decay of AdamW's mean of gradients", least=0, below=1)
    beta2: float = setting(0.999, "decay of AdamW's mean of their squares", least=0, below=1)
    eps: float = setting(1e-8, "of AdamW's denominator", above=0)
    grad_clip: float = setting(1.0, "norm that gradients are scaled down to; 0: off", least=0)
    lr_warmup_steps: int = setting(0, "updates in which the learning rate rises from 0", least=0)
    lr_decay_steps: int = setting(0, "updates after those in which it falls linearly to a tenth, where it stays; 0: none", least=0)
    clip_low: float = setting(0.2, "ratios are clipped below 1 - clip_low; 1: no bound from below", above=0, most=1)
    clip_high: float = setting(0.2, "and above 1 + clip_high; 0.28 in the published main branch", above=0)
    dual_clip: float = setting(0.0, "of ppo: bound on the loss of bad tokens, above 1; 0: off; 3.0 in the published main branch", least=0)
    importance_sampling: str = setting(
        "off",
        "on: weigh tokens by the trainer's over the rollout engine's probability, at most importance_cap; metrics: only measure it",
        choices=("off", "metrics", "on"),
    )
    importance_cap: float = setting(2.0, "the largest such weight", above=0)
    importance_level: str = setting(
        "token", "of that weight: of the token, or of the whole response, the product of its tokens'", choices=("token", "sequence")
    )
    importance_reject: str = setting(
        "none",
        "what is not learnt from where its ratio of trainer to rollout engine is outside the band: single tokens, or responses by their product "
        "(sequence) or their geometric mean; as importance_sampling says, done or only measured",
        choices=("none", "token", "sequence", "geometric"),
    )
    importance_low: float = setting(0.5, "lower end of that band; the geometric mean of a long response wants 0.999 or so", above=0, most=1)
    importance_high: float = setting(2.0, "upper end of it; 1.001 or so", least=1)
    entropy: float = setting(0.001, "weight of the entropy bonus", least=0)
    train_embeddings: bool = setting(True, "train the embedding and the output layer too; without, they cost no gradient and no moments")


@dataclass
class CompositeConfig:
    """Deduction and abduction proposals that must build on programs of the buffer, as functions g_0, g_1, ... (docs/algorithm.md)."""

    chance: float = setting(0.0, "that a prompt asks for it, once the ramp is over; 0: never", least=0, most=1, noun="probability")
    start: int = setting(1, "the first step with such prompts", least=1)
    ramp: int = setting(0, "steps over which the chance rises evenly to `chance`; 0: at once", least=0)
    functions_min: int = setting(1, "functions of one prompt: drawn evenly from min to max", least=1)
    functions_max: int = setting(2, "see functions_min", least=1)
    grow_every: int = setting(0, "steps after which one more may be drawn, from min up to max; 0: max at once", least=0)


IMPORTS = (
    "abc bisect cmath collections copy dataclasses decimal enum fractions functools heapq itertools math numbers operator re statistics string "
    "textwrap typing"
)


@dataclass
class SelfPlayConfig:
    steps: int = setting(100, "of the run", least=1)
    batch_size: int = setting(64, "rows per role and task type", least=2)
    proposals: int = setting(0, "proposals per task type, where they are not as many as the answers; 0: batch_size of them", least=0)
    propose_samples: int = setting(1, "proposals that answer the same prompt; the batch then has that many fewer prompts", least=1)
    solve_samples: int = setting(1, "answers to the same task; the batch then has that many fewer tasks", least=1)
    task_types: list[str] = setting(["deduction", "abduction", "induction"], "what is proposed and solved", registered="task types")
    prompt_style: str = setting(
        "r1",
        "r1: thoughts and answer between tags; completion: fenced blocks, for warm-started models; code: a file that goes on, for models of code; chat, "
        "chat_thoughts: the tokenizer's chat template, with short answers or with thoughts (docs/algorithm.md)",
        registered="prompt styles",
    )
    wordings: int = setting(
        1,
        "of a solver's prompt, of which each task that is solved gets one, drawn evenly; 1: always the first (docs/algorithm.md)",
        least=1,
    )
    references: int = setting(6, "tasks of the buffer that a proposal's prompt shows", least=0)
    reference_sampling: str = setting(
        "uniform",
        "how they are drawn: uniform, recent (newer is likelier), long (by lines), hard (seldom solved), learnable (solved about half the time), depth (a "
        "requested length first, then tasks of that length)",
        registered="samplings of references",
    )
    wishes: int = setting(
        0, "operations, drawn evenly, that a deduction or abduction prompt asks for beside a type of input; 0: none", least=0, most=8
    )
    longest_asked: int = setting(5, "of reference_sampling=depth: the most lines of a body that a prompt asks for", least=1)
    composite: CompositeConfig = section(CompositeConfig)
    induction_pairs: int = setting(10, "inputs of an induction task, shown and hidden", least=2)
    solve_from: str = setting(
        "current",
        "current: this step's tasks topped up from the buffer; previous: those of the step before; recent: of the last solve_window steps; mixed: half "
        "current, half buffer; previous_mixed: half previous, half buffer; buffer: uniform over all of it; newer: newer is likelier; learnable: solved "
        "about half the time",
        registered="mixes",
    )
    schedule: str = setting(
        "sequential",
        "which phases of a step share a batch: sequential, none; merged, propose and solve; pipelined, the estimates of what the step before proposed, "
        "solve, and the next step's propose, whose rows are one update old when they are learnt from (docs/algorithm.md)",
        registered="schedules",
    )
    staleness: int = setting(
        0,
        "of placement=split: updates between the weights that sample a step and those that learn from it; with 1 a step is sampled while the one before "
        "is learnt from; 0: one after the other, as colocated",
        least=0,
        most=64,
    )
    dynamic_sampling: int = setting(
        0,
        "rounds in which further tasks take the places of those all of whose answers earned the same; 0: none (docs/algorithm.md)",
        least=0,
        most=64,
    )
    solve_window: int = setting(2, "of solve_from=recent: how many steps, this one included", least=1)
    reuse_estimates: bool = setting(False, "train on the estimates too")
    known_answers: bool = setting(False, "where no answer to a task was right, train on the known one beside them (docs/algorithm.md)")
    replay: int = setting(
        0, "further steps that learn from a right answer again, as it was drawn; 0: none (docs/algorithm.md)", least=0, most=64
    )
    train_propose: bool = setting(True, "train the proposer too")
    proposer_weight: float = setting(1.0, "scales the proposer's advantages", least=0, most=FAR)
    buffer_capacity: int = setting(16384, "tasks per type", least=1)
    valid_program_filter: str = setting(
        "all",
        "which valid tasks enter the buffer: all, non_one (not always solved), non_extremes (nor never)",
        choices=("all", "non_one", "non_extremes"),
    )
    refuse_ignored_input: bool = setting(False, "an abduction task whose result is the same for other inputs is none: any input answers it")
    refuse_echoed_output: bool = setting(
        False, "and one that its own output, written as an argument, answers: no look at the program is needed for it"
    )
    shape_cap: int = setting(0, "tasks of a type whose programs differ in names and constants alone; more are refused; 0: no cap", least=0)
    retire_easy: float = setting(
        0.0, "a task is asked last once this share of its answers was right; 0: never", least=0, most=1, noun="share"
    )
    retire_hard: float = setting(0.0, "and once less than this share was; 0: never", least=0, most=1, noun="share")
    retire_after: int = setting(8, "answers to a task before either is concluded", least=1)
    imports: list[str] = setting(IMPORTS.split(), "modules that a proposed program may import")
    strip_comments: bool = setting(False, "take comments and docstrings out of proposed programs")
    strip_globals: bool = setting(False, "and top-level statements other than imports, functions and classes")
    strip_prints: bool = setting(False, "and print(...) statements")
    rename_entry: bool = setting(False, "without a function f the last top-level one becomes it, as in the published Llama runs")

    @property
    def proposed(self) -> int:
        """Proposals per task type of a step."""
        return self.proposals or self.batch_size

    @property
    def refused_abduction(self) -> list[str]:
        """Reasons for which a program is no abduction task (`azr_nemo.selfplay.validation.IDLE`)."""
        asked = {"ignores_input": self.refuse_ignored_input, "echoed_output": self.refuse_echoed_output}
        return [reason for reason, on in asked.items() if on]

    @property
    def trained_proposals(self) -> int:
        """Proposals that a step trains on."""
        return self.proposed * self.train_propose * len(self.task_types)

    @property
    def rows(self) -> int:
        """Proposals and answers that a step trains on, estimates and replayed ones aside."""
        return self.trained_proposals + self.batch_size * len(self.task_types)

    def learnt_answers(self, estimate_samples: int) -> int:
        """Answers that a step trains on at most: its own, estimates where they are reused, and of each step that is replayed as many."""
        own = (self.batch_size + self.proposed * estimate_samples * self.reuse_estimates) * len(self.task_types)
        return own * (1 + self.replay)
