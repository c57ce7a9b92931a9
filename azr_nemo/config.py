"""The typed schema of a run. Every setting has one place here, with its default, its unit and its meaning; recipes only override.

Values are checked in `settings.py`. Defaults are the paper's; where the published code differs, the comment says so.
"""

from dataclasses import dataclass, field


@dataclass
class ModelConfig:
    path: str = ""  # a Hugging Face directory, `embedded:NAME` (models/embedded.py), or `scratch:tiny` (random weights, made from the seed)
    # bfloat16 (fp32 master weights) | float32 | auto: bfloat16 where the hardware multiplies it fast, else float32; a resumed run keeps its own
    dtype: str = "auto"
    # The trainer multiplies the last hidden states with the output layer in fp32, whatever the dtype: twice the memory for logits, more time
    fp32_logits: bool = False
    seed: int = 1  # of random weights, for scratch models
    # Shape of a published model (a file of azr_nemo/models/architectures), so that a recipe can be checked and sized before its weights are at hand
    architecture: str = ""


@dataclass
class EngineConfig:
    name: str = "megatron"  # megatron | aligner
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    sequence_parallel: bool = False  # shard activations between the tensor-parallel regions too
    micro_batch_tokens: int = 4096  # of one micro-batch, whose rows lie end to end without padding
    distributed_optimizer: bool = False  # shard the optimizer over data-parallel ranks
    recompute: bool = False  # recompute activations in the backward pass
    threads: int = 0  # CPU threads of a rank; 0: the machine's cores shared by its ranks


@dataclass
class RolloutConfig:
    name: str = "torch"  # torch | transformers | trtllm; with engine=aligner: nemo | trtllm
    temperature: float = 1.0  # of proposals, solutions and estimates; never greedy in training
    estimate_samples: int = 8  # n, solver samples per proposed task
    max_prompt_tokens: int = 6144
    max_propose_tokens: int = 8096
    max_solve_tokens: int = 8096
    max_batch_rows: int = 64  # rows decoded together
    tensor_parallel: int = 1  # GPUs of one replica, of trtllm alone
    memory_fraction: float = 0.5  # of a GPU's memory that is free when trtllm starts, for its KV cache


@dataclass
class ExecutorConfig:
    name: str = "local"
    workers: int = 0  # 0: one per core
    wall_s: float = 5.0
    cpu_s: float = 5.0
    memory_mb: int = 512
    output_chars: int = 8000
    recycle_after: int = 2000  # requests served before a worker is replaced
    queue: int = 1024  # bounded queue of requests
    allow_unjailed: bool = False
    modules: list[str] = field(
        default_factory=list
    )  # installed packages that programs may import too: [numpy]; selfplay.imports must allow them
    # Of sandbox_fusion alone; a server's token comes from the environment variable AZR_NEMO_SANDBOX_TOKEN.
    endpoints: list[str] = field(default_factory=list)  # URLs of servers, asked in turn
    concurrency: int = 16  # requests in flight
    attempts: int = 5  # tries of a request before the run ends for want of an executor
    patience_s: float = 30.0  # how long an answer may take beyond the programs' own limits


@dataclass
class IntrinsicConfig:
    """One intrinsic reward of the proposer: min(coef * value, max). Off while coef is 0."""

    coef: float = 0.0
    max: float = 0.5
    hierarchical: bool = False  # of the diversities: compare values within their Python type
    target: str = ""  # package.function of the user's own: (task, references, history) -> float


@dataclass
class RewardConfig:
    right: float = 1.0
    wrong: float = -0.5
    malformed: float = -1.0
    invalid: float = -1.0  # a proposal that cannot be read, does not run or is not allowed
    unlearnable: float = -0.5  # every or no estimate solved it; 0 in the paper's text
    learnability: str = "one_minus_p"  # one_minus_p (paper) | four_p_one_minus_p
    duplicate: float = -0.5  # a valid proposal already in the buffer
    induction: str = "binary"  # binary: all hidden pairs | fraction
    # What learnable tasks earn beside their learnability; a name that is not listed here is the user's own and needs a target.
    intrinsic: dict[str, IntrinsicConfig] = field(
        default_factory=lambda: {
            name: IntrinsicConfig()
            for name in ("complexity", "edit_distance", "halstead", "answer_diversity", "input_diversity", "output_diversity")
        }
    )
    intrinsic_combine: str = "sum"  # r + Σc | multiply: r * Πc | sum_multiply: r + Πc | multiply_sum: r * Σc


@dataclass
class AdvantageConfig:
    name: str = "trr_plus_plus"  # trr_plus_plus | reinforce_plus_plus | grpo | dr_grpo | rloo | hierarchical_grpo | role_baseline
    weighting: str = "token"  # of trr_plus_plus and reinforce_plus_plus: token (reference) | sequence
    decay: float = 0.95  # of role_baseline's moving averages
    filter_zero_variance: bool = False  # leave out rows without an advantage: all that they were compared with earned the same


@dataclass
class OptimConfig:
    loss: str = "ppo"  # ppo | gspo | cispo
    aggregation: str = "token_mean"  # token_mean | sequence_mean
    mini_batches: int = 1  # optimizer steps that a step's rows are split into; with one, ratios are 1 and no clip bites
    lr: float = 1e-6
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    grad_clip: float = 1.0
    lr_warmup_steps: int = 0  # updates in which the learning rate rises from 0
    lr_decay_steps: int = 0  # updates after those in which it falls linearly to a tenth, where it stays; 0: it stays as it is
    clip_low: float = 0.2  # 1: no bound from below
    clip_high: float = 0.2  # 0.28 in the published main branch
    dual_clip: float = 0.0  # of ppo; 0: off; 3.0 in the published main branch
    # off | metrics | on: weigh tokens by the trainer's over the rollout engine's probability, at most importance_cap; metrics: only measure it
    importance_sampling: str = "off"
    importance_cap: float = 2.0
    entropy: float = 0.001


@dataclass
class CompositeConfig:
    """Deduction and abduction proposals that must build on programs of the buffer, as functions g_0, g_1, ... (docs/algorithm.md)."""

    chance: float = 0.0  # that a prompt asks for it, once the ramp is over; 0: never
    start: int = 1  # the first step with such prompts
    ramp: int = 0  # steps over which the chance rises evenly to `chance`; 0: at once
    functions_min: int = 1  # functions of one prompt: drawn evenly from min to max
    functions_max: int = 2
    grow_every: int = 0  # steps after which one more may be drawn, from functions_min up to functions_max; 0: functions_max at once


@dataclass
class SelfPlayConfig:
    steps: int = 100
    batch_size: int = 64  # rows per (role, task type)
    proposals: int = 0  # proposals per task type, where they are to be fewer or more than the answers; 0: batch_size of them
    propose_samples: int = 1  # proposals that answer the same prompt; the batch then has that many fewer prompts
    solve_samples: int = 1  # answers to the same task; the batch then has that many fewer tasks
    task_types: list[str] = field(default_factory=lambda: ["deduction", "abduction", "induction"])
    prompt_style: str = "r1"  # r1 | completion | code | chat | chat_thoughts (docs/algorithm.md)
    references: int = 6
    # uniform | recent (newer is likelier) | long (by lines) | hard (seldom solved) | learnable (solved about half the time)
    # | depth (a requested length first, then tasks of that length)
    reference_sampling: str = "uniform"
    longest_asked: int = 5  # of reference_sampling=depth: the most lines of a body that a prompt asks for
    composite: CompositeConfig = field(default_factory=CompositeConfig)
    induction_pairs: int = 10
    # current: this step's tasks topped up from the buffer | previous: those of the step before | recent: of the last solve_window steps
    # | mixed: half current, half buffer | previous_mixed: half previous, half buffer | buffer: uniform over all of it | newer: newer is likelier
    solve_from: str = "current"
    solve_window: int = 2  # of solve_from=recent: how many steps, this one included
    reuse_estimates: bool = False  # train on the estimates too
    known_answers: bool = False  # where no answer to a task was right, train on the known one beside them (docs/algorithm.md)
    train_propose: bool = True
    proposer_weight: float = 1.0  # scales the proposer's advantages
    buffer_capacity: int = 16384  # tasks per type
    valid_program_filter: str = "all"  # which valid tasks enter the buffer: all | non_one (not always solved) | non_extremes (nor never)
    imports: list[str] = field(
        default_factory=lambda: [
            "abc", "bisect", "cmath", "collections", "copy", "dataclasses", "decimal", "enum", "fractions", "functools", "heapq",
            "itertools", "math", "numbers", "operator", "re", "statistics", "string", "textwrap", "typing",
        ]
    )  # fmt: skip
    strip_comments: bool = False  # take comments and docstrings out of proposed programs
    strip_globals: bool = False  # and top-level statements other than imports, functions and classes
    strip_prints: bool = False  # and print(...) statements
    rename_entry: bool = False  # a proposed program without a function f: its last top-level one is renamed, as in the published Llama runs

    @property
    def proposed(self) -> int:
        """Proposals per task type of a step."""
        return self.proposals or self.batch_size

    @property
    def rows(self) -> int:
        """Proposals and answers that a step trains on, estimates aside."""
        return (self.batch_size + self.proposed * self.train_propose) * len(self.task_types)


@dataclass
class DataConfig:
    seed_files: list[str] = field(default_factory=list)  # JSONL in the reference's schema or ours
    seed_factor: int = 4  # seeding stops at batch_size x this many valid tasks per type
    seed_batch: int = 64  # proposals that seeding asks for at a time
    seed_rounds: int = 50  # and gives up after this many batches per type


@dataclass
class WarmupConfig:
    """A short supervised warm start on generated easy tasks: a departure from zero data that a very small model needs. 0 steps: off."""

    steps: int = 0
    batch_size: int = 16
    lr: float = 2e-4
    programs: int = 9000
    seed: int = 1


@dataclass
class CheckpointConfig:
    every: int = 10  # steps; the last step is always saved
    keep: int = 2  # newest checkpoints that are kept
    keep_every: int = 0  # checkpoints of steps divisible by this are kept for good; 0: none
    asynchronous: bool = True  # training goes on while a checkpoint is being written


@dataclass
class ClusterConfig:
    """What a recipe is made for: `azr-nemo plan`, `launch` and dry runs read it; a run itself has as many ranks as its launcher gives it."""

    nodes: int = 1
    gpus_per_node: int = 0  # 0: CPU
    gpu_memory_gb: int = 80


@dataclass
class AlignerConfig:
    """What only engine=aligner has (docs/aligner.md). Its model.path is a .nemo file or a NeMo checkpoint folder."""

    micro_batch: int = 1  # rows of one micro-batch, padded to the step's longest
    tokenizer: str = ""  # the tokenizer's Hugging Face directory, where the one that the checkpoint names is not here
    checkpoint_format: str = "zarr"  # zarr, without a pickled index | torch_dist
    offload_optimizer: bool = True  # to the host's memory while sampling, on GPUs with engine.distributed_optimizer
    stop_strings: list[str] = field(default_factory=list)  # that end a response beside the end token
    # Of rollout=trtllm
    model_type: str = "llama"  # as NeMo 2.1's exporter calls it: gpt | gptnext | llama | falcon | starcoder | mixtral | gemma
    reshard: bool = True  # sample with tensor parallelism alone, each pipeline stage as a replica
    unload_engine: bool = False  # free TensorRT-LLM's engine while training, and build it anew


@dataclass
class RuntimeConfig:
    watchdog_s: float = 7200.0  # longest that a rank waits for another; generating and grading a large batch lies between two commands


@dataclass
class AlarmsConfig:
    """When a metric `alarm/NAME` becomes 1 (azr_nemo/observe/alarms.py). A fall is from the run's highest mean over `window` steps, as a share of
    it. A threshold of 0 turns its alarm off."""

    window: int = 10  # steps that are averaged
    diversity_fall: float = 0.3  # of the share of different programs among a step's valid proposals
    duplicates: float = 0.5  # share of valid proposals that are in the buffer already
    format_fall: float = 0.3  # of the share of proposals and answers that can be read
    rollout_kl: float = 0.02  # nats a token between the rollout engine and the trainer
    entropy_fall: float = 0.8  # of the entropy of a token


@dataclass
class LoggingConfig:
    rollouts: float = 1.0  # share of each step's rollouts that is written to run_dir/rollouts, from 0 (none) to 1 (all)
    tensorboard: bool = True
    console: str = "auto"  # auto | rich | plain | json
    samples_every: int = 10  # steps between those that show three sampled tasks, beginning with the first; 0: none
    wandb: bool = False  # Weights & Biases too; needs the extra [wandb]. Its own variables hold: WANDB_API_KEY, WANDB_ENTITY, WANDB_MODE
    wandb_offline: bool = False  # keep its files in the run directory, for `wandb sync`
    wandb_project: str = "azr-nemo"
    wandb_run_id: str = ""  # the run of Weights & Biases to go on with; empty: the one that run_dir/wandb.json names, else a new one
    alarms: AlarmsConfig = field(default_factory=AlarmsConfig)


@dataclass
class EvalConfig:
    every: int = 0  # steps; 0: only before the first and after the last step when items > 0
    items: int = 0  # held-out tasks per task type from the warm start's generator; 0: off
    suites: list[str] = field(default_factory=list)  # benchmarks, as of `azr-nemo eval`: [cruxeval_output, math500]
    data: str = "data/eval"  # what `azr-nemo data prepare` wrote
    limit: int = 50  # items of each suite, always the same; 0: all
    stop_if_worse: float = 0.0  # stop when held-out accuracy has fallen this far below its best, beyond the intervals; 0: never


@dataclass
class RunConfig:
    recipe: str = ""
    run_dir: str = "runs/${recipe}"
    seed: int = 1
    platform: str = "auto"  # auto | cpu | cuda
    resume: str = "auto"  # auto | never | a checkpoint's path
    model: ModelConfig = field(default_factory=ModelConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    selfplay: SelfPlayConfig = field(default_factory=SelfPlayConfig)
    data: DataConfig = field(default_factory=DataConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    aligner: AlignerConfig = field(default_factory=AlignerConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
