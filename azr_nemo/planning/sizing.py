"""The numbers of a recipe that its size depends on."""

import os
from dataclasses import dataclass, field

from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import Architecture
from azr_nemo.settings.machine import LoraConfig
from azr_nemo.settings.schema import RunConfig

WIDTHS = {"bfloat16": 2, "float32": 4}  # bytes of a number
# How long prompts and responses are on average, as a share of the most that the recipe allows; only the run itself can tell.
MEAN_SHARE = 0.25
# Rows, and blocks of rows that share a prompt, up to this long keep their attention scores on a CPU (azr_nemo.megatron.layers).
SHORT = 512


@dataclass(frozen=True)
class Layout:
    """How the trainer is cut: tensor x pipeline x data ranks."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    sequence_parallel: bool = False

    @property
    def ranks(self) -> int:
        return self.tensor * self.pipeline * self.data


@dataclass(frozen=True)
class MicroBatch:
    """The largest micro-batch of a step. learnt: those of its `tokens` that reach the output layer. row: tokens of its rows."""

    tokens: int
    learnt: int
    row: int


@dataclass(frozen=True)
class Rollouts:
    """How completions are sampled. tensor: GPUs of one replica (1 unless trtllm, vllm or nemo; NeMo-Aligner's are cut as its trainer is). fraction: of the
    GPU's free memory, for the cache of trtllm and vllm. rows: decoded together on one replica. prompt, response: the longest, in tokens.
    pool: bytes of vllm's cache on a CPU."""

    name: str
    tensor: int
    fraction: float
    rows: int
    prompt: int
    response: int
    pool: int = 0

    @property
    def pooled(self) -> bool:
        """Whether keys and values have a pool that is taken at the start: the engines of clusters."""
        return self.name in ("trtllm", "vllm")


@dataclass(frozen=True)
class Work:
    """What one step samples and learns. propose, estimate, solve: prompts of each phase, the latter two with estimate_samples and solve_samples
    answers. rows: that are learnt from, `answers` of them answers, of which each `shared` have one copy of their prompt. mean_*: tokens, assumed."""

    propose: int
    estimate: int
    estimate_samples: int
    solve: int
    solve_samples: int
    rows: int
    answers: int
    shared: int
    longest_propose: int
    longest_solve: int
    mean_prompt: int
    mean_propose: int
    mean_solve: int

    @property
    def trained_tokens(self) -> int:
        """Prompt and response tokens of the rows that are learnt from."""
        return (self.rows - self.answers - (-self.answers // self.shared)) * self.mean_prompt + self.learnt_tokens

    @property
    def learnt_tokens(self) -> int:
        return (self.rows - self.answers) * self.mean_propose + self.answers * self.mean_solve


@dataclass(frozen=True)
class Sizing:
    """A run in numbers. width: bytes of the model's dtype. gpus_per_node: 0 on a CPU. capacity: bytes of a rank's GPU, or of
    this machine's memory. padded: rows are padded and every position reaches the output layer, as in NeMo-Aligner. mini_batches: optimizer steps
    of an update. fp32_logits: the head's products are in fp32. offload_gradients: there are none while sampling. schedule: which phases of a
    step share a batch. lora: adapters, which then learn alone. frozen: the embedding and the output layer are not
    trained (one stage). samplers: ranks beside those of the layout that only sample; 0: those of the layout do both. staleness: updates between
    the weights that sample and those that learn; above 0 both go on at the same time."""

    model: Architecture
    layout: Layout
    width: int
    recompute: bool
    distributed_optimizer: bool
    batch: MicroBatch
    micro_batch_tokens: int
    rollouts: Rollouts
    work: Work
    nodes: int
    gpus_per_node: int
    capacity: int
    padded: bool = False
    mini_batches: int = 1
    fp32_logits: bool = False
    offload_gradients: bool = True
    schedule: str = "sequential"
    lora: LoraConfig = field(default_factory=LoraConfig)
    frozen: bool = False
    samplers: int = 0
    staleness: int = 0

    @property
    def ranks(self) -> int:
        return self.layout.ranks + self.samplers

    @property
    def sampling_ranks(self) -> int:
        return self.samplers or self.layout.ranks

    @property
    def replicas(self) -> int:
        """Groups of ranks that sample together."""
        return max(1, self.sampling_ranks // self.rollouts.tensor)

    @property
    def accelerated(self) -> bool:
        return self.gpus_per_node > 0

    @property
    def micro_batches(self) -> int:
        """Of an optimizer step, on one data-parallel rank, at the assumed mean lengths."""
        share = -(-self.work.trained_tokens // (self.layout.data * self.mini_batches))
        return max(1, -(-share // self.micro_batch_tokens))


def sizing(config: RunConfig, model: Architecture, mean_prompt: int = 0, mean_response: int = 0) -> Sizing:
    """A recipe's numbers. mean_prompt, mean_response: tokens; 0 takes a quarter of what the recipe allows.

    The layout must have passed `check_layout`. Raises UserError when a replica of the rollout engine does not divide the GPUs that sample.
    """
    engine, cluster = config.engine, config.cluster
    ranks, samplers = ranks_of(config), config.sampler_ranks
    size = engine.tensor_parallel * engine.pipeline_parallel
    layout = Layout(engine.tensor_parallel, engine.pipeline_parallel, ranks // size, engine.sequence_parallel)
    rollout = config.rollout
    padded = engine.name == "aligner"
    response = max(rollout.max_propose_tokens, rollout.max_solve_tokens)
    work = _work(config, mean_prompt, mean_response)
    rollouts = Rollouts(
        name=rollout.name,
        tensor={
            "trtllm": engine.tensor_parallel if padded else rollout.tensor_parallel,
            "vllm": rollout.tensor_parallel,
            "nemo": size,
        }.get(rollout.name, 1),
        fraction=rollout.memory_fraction,
        rows=rollout.max_batch_rows,
        prompt=rollout.max_prompt_tokens,
        response=response,
        pool=rollout.vllm.cpu_cache_mb << 20,
    )
    if (samplers or ranks) % rollouts.tensor:
        whose = "cluster.sampler_ranks" if samplers else "cluster.nodes x cluster.gpus_per_node"
        raise UserError(
            f"rollout.tensor_parallel={rollouts.tensor} does not divide the {samplers or ranks} GPUs of {whose}: use a divisor of them"
        )
    limit = engine.micro_batch_tokens
    most = 1 if cluster.gpus_per_node else max(work.solve_samples, work.estimate_samples * config.selfplay.reuse_estimates)
    batch = largest_micro_batch(limit, rollout.max_prompt_tokens, response, work.mean_prompt, most)
    if padded:
        row = rollout.max_prompt_tokens + response
        limit = config.aligner.micro_batch * row
        batch = MicroBatch(limit, limit, row)
    return Sizing(
        model=model,
        layout=layout,
        width=width(config),
        recompute=engine.recompute,
        distributed_optimizer=engine.distributed_optimizer,
        batch=batch,
        micro_batch_tokens=limit,
        rollouts=rollouts,
        work=work,
        nodes=cluster.nodes,
        gpus_per_node=cluster.gpus_per_node,
        capacity=cluster.gpu_memory_gb * 10**9 if cluster.gpus_per_node else machine_memory(),
        padded=padded,
        mini_batches=config.optim.mini_batches,
        fp32_logits=config.model.fp32_logits,
        offload_gradients=engine.offload_gradients,
        schedule=config.selfplay.schedule,
        lora=config.model.lora,
        frozen=not config.optim.train_embeddings,
        samplers=samplers,
        staleness=config.selfplay.staleness,
    )


def ranks_of(config: RunConfig) -> int:
    """Those that train, of one for each GPU of the cluster that the recipe is made for; on a CPU one for each node. Raises UserError where all sample."""
    ranks = config.cluster.nodes * max(1, config.cluster.gpus_per_node)
    if ranks <= config.sampler_ranks:
        raise UserError(
            f"cluster.sampler_ranks={config.sampler_ranks} leaves none of the {ranks} ranks of cluster.nodes x cluster.gpus_per_node to train: lower it"
        )
    return ranks - config.sampler_ranks


def machine_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def width(config: RunConfig) -> int:
    """Bytes of the model's dtype. auto: bfloat16 on GPUs, and on a CPU what this one multiplies fast."""
    name = config.model.dtype
    if name == "auto" and config.cluster.gpus_per_node:
        name = "bfloat16"
    elif name == "auto":
        from azr_nemo.megatron.platform import choose_dtype, choose_platform

        name = str(choose_dtype(name, choose_platform("cpu"))).removeprefix("torch.")
    return WIDTHS[name]


def largest_micro_batch(limit: int, prompt: int, response: int, mean_prompt: int, answers: int = 1) -> MicroBatch:
    """The largest that may come: rows up to `limit` tokens together, or a single row that is longer. A row's last token is only a target.

    Where several rows fit, those with the longest responses behind prompts of mean length have most to learn. answers: rows of one prompt, which
    share it (azr_nemo.megatron.batches), as they do without TransformerEngine.
    """
    longest = prompt + response - 1
    if longest >= limit:
        return MicroBatch(longest, min(longest, max(response, limit * response // (response + mean_prompt))), longest)
    row = min(longest, mean_prompt + response)
    together = max(1, min(answers, (min(limit, SHORT) - mean_prompt) // response))
    if together > 1:
        row, response = mean_prompt + together * response, together * response
    return MicroBatch(limit, min(limit, -(-limit * response // row)), row)


def _work(config: RunConfig, mean_prompt: int, mean_response: int) -> Work:
    rollout, selfplay = config.rollout, config.selfplay
    types = len(selfplay.task_types)

    def mean(longest: int, given: int) -> int:
        return min(longest, given) if given else max(1, round(longest * MEAN_SHARE))

    answers = selfplay.learnt_answers(rollout.estimate_samples)
    return Work(
        propose=selfplay.proposed * types,
        estimate=selfplay.proposed * types,
        estimate_samples=rollout.estimate_samples,
        solve=selfplay.batch_size // selfplay.solve_samples * types,
        solve_samples=selfplay.solve_samples,
        rows=selfplay.trained_proposals + answers,
        answers=answers,
        shared=1 if config.cluster.gpus_per_node else selfplay.solve_samples,
        longest_propose=rollout.max_propose_tokens,
        longest_solve=rollout.max_solve_tokens,
        mean_prompt=mean(rollout.max_prompt_tokens, mean_prompt),
        mean_propose=mean(rollout.max_propose_tokens, mean_response),
        mean_solve=mean(rollout.max_solve_tokens, mean_response),
    )
