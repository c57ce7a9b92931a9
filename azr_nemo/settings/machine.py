"""What a run runs on and with: the model, the engines that train and sample, the executor, ranks and machines."""

from dataclasses import dataclass

from azr_nemo.settings.field import section, setting

LONGEST_S = 86_400.0  # no program runs for longer than a day
LARGEST_OUTPUT = 1 << 24


TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass
class LoraConfig:
    rank: int = setting(0, "of the adapters that learn in the place of the weights (LoRA, engine=megatron); 0: the weights learn", least=0)
    alpha: float = setting(32.0, "what they add is multiplied by alpha / rank", above=0)
    targets: list[str] = setting(list(TARGETS), "the linear layers that have adapters, by their Hugging Face names", choices=TARGETS)
    path: str = setting("", "a PEFT directory whose adapters a new run begins with; empty: they add nothing at first", path=True)


@dataclass
class ModelConfig:
    path: str = setting(
        "",
        "a Hugging Face directory, `embedded:NAME` (models/embedded.py), or `scratch:tiny` (random weights, made from the seed)",
        path=True,
        needed="give a Hugging Face directory, or choose a model with model=NAME",
    )
    dtype: str = setting(
        "auto",
        "bfloat16 (with fp32 master weights), float32, or auto: bfloat16 where the hardware multiplies it fast, else float32; a resumed run keeps its own",
        choices=("auto", "bfloat16", "float32"),
    )
    fp32_logits: bool = setting(False, "the trainer multiplies by the output layer in fp32: twice the memory for logits, more time")
    seed: int = setting(1, "of random weights, for scratch models", least=0, most=2**63 - 1)
    lora: LoraConfig = section(LoraConfig)
    architecture: str = setting("", "of a file in azr_nemo/models/architectures: a recipe is checked and sized before its weights are here")


@dataclass
class EngineConfig:
    name: str = setting(
        "megatron",
        "megatron: megatron-core; aligner: NeMo-Aligner 0.7, in an environment of its own (docs/aligner.md)",
        choices=("megatron", "aligner"),
    )
    tensor_parallel: int = setting(1, "ranks that share each layer", least=1)
    pipeline_parallel: int = setting(1, "stages of layers", least=1)
    sequence_parallel: bool = setting(False, "shard activations between the tensor-parallel regions too")
    micro_batch_tokens: int = setting(4096, "tokens of one micro-batch, whose rows lie end to end without padding", least=1)
    distributed_optimizer: bool = setting(False, "shard the optimizer over data-parallel ranks")
    recompute: bool = setting(False, "recompute activations in the backward pass")
    offload_gradients: bool = setting(True, "the memory of the fp32 gradients is free while sampling")
    threads: int = setting(
        0,
        "CPU threads of a rank; 0: the cores that it may use, shared with the machine's other ranks; on a machine with other work 1 may be faster",
        least=0,
        most=4096,
    )


@dataclass
class VllmConfig:
    """What only rollout=vllm has (docs/engines.md)."""

    python: str = setting("", "the interpreter of vLLM's own environment; empty: the one that `make vllm` made", path=True)
    transfer: str = setting(
        "auto",
        "of weights: shm, shared memory of one machine; ipc, where trainer and sampler share GPUs; nccl; auto: what fits",
        choices=("auto", "shm", "ipc", "nccl"),
    )
    port: int = setting(0, "on 127.0.0.1, of a node's first server; the others count up; 0: any that is free", least=0, most=65535)
    cpu_cache_mb: int = setting(1024, "MiB of keys and values on a CPU", least=1)
    start_s: float = setting(600.0, "seconds that a server may take to start", above=0, most=LONGEST_S)
    patience_s: float = setting(600.0, "seconds that it may stand still before the run ends", above=0, most=LONGEST_S)


@dataclass
class RolloutConfig:
    name: str = setting(
        "torch",
        "torch: our own decode for Llama, Qwen2 and Qwen3; transformers: anything it knows; trtllm: TensorRT-LLM on the training GPUs, asleep while they "
        "train (not run on hardware yet); vllm: servers of vLLM's own environment (docs/engines.md); with "
        "engine=aligner: nemo, its own generate, or trtllm",
        choices=("nemo",),
        registered="rollout engines",
    )
    temperature: float = setting(1.0, "of proposals, solutions and estimates; never greedy in training", above=0, most=100)
    # Only these tokens are drawn; log-probabilities are then of what is left (but trtllm's), which the trainer does not know of.
    top_p: float = setting(1.0, "draws from the likeliest tokens that reach this probability together; 1: all", above=0, most=1)
    top_k: int = setting(0, "draws from so many of the likeliest tokens; 0: all", least=0)
    min_p: float = setting(0.0, "draws from tokens with this share of the likeliest one's probability; 0: all", least=0, most=1)
    estimate_samples: int = setting(8, "n: solver samples of each proposed task", least=2)
    max_prompt_tokens: int = setting(6144, "tokens of the longest prompt", least=1)
    max_propose_tokens: int = setting(8096, "tokens of the longest proposal", least=1)
    max_solve_tokens: int = setting(8096, "tokens of the longest solution", least=1)
    max_batch_rows: int = setting(64, "rows decoded together", least=1)
    tensor_parallel: int = setting(1, "GPUs of one replica, of trtllm and vllm", least=1)
    memory_fraction: float = setting(0.5, "share of a GPU's memory, free when trtllm or vllm starts, for its KV cache", above=0, most=1)
    endpoints: list[str] = setting([], "of vllm: URLs of servers that run already, one a replica; empty: each replica starts its own")
    update_in_flight: bool = setting(
        False,
        "new weights come between tokens, when an update ends, and not between steps: of rollout=vllm with selfplay.staleness above 0",
    )
    vllm: VllmConfig = section(VllmConfig)


@dataclass
class ExecutorConfig:
    name: str = setting(
        "local",
        "local: jailed fork-server workers on this machine; sandbox_fusion: remote servers, ByteDance's Sandbox-Fusion or `azr-nemo sandbox serve`, whose "
        "token comes from the environment variable AZR_NEMO_SANDBOX_TOKEN",
        choices=("local", "sandbox_fusion"),
    )
    workers: int = setting(0, "processes; 0: one per core", least=0, most=4096)
    wall_s: float = setting(5.0, "seconds of one call", above=0, most=LONGEST_S)
    cpu_s: float = setting(5.0, "CPU seconds of one call", above=0, most=LONGEST_S)
    memory_mb: int = setting(512, "MiB of address space that a program may add", least=16, most=1 << 20)
    output_chars: int = setting(8000, "characters of the longest value that is accepted", least=1, most=LARGEST_OUTPUT)
    recycle_after: int = setting(2000, "requests served before a worker is replaced", least=1)
    queue: int = setting(1024, "requests that may wait", least=1)
    allow_unjailed: bool = setting(False, "run programs without isolation where this machine offers none")
    modules: list[str] = setting([], "installed packages that programs may import too: [numpy]; selfplay.imports must allow them")
    endpoints: list[str] = setting([], "of sandbox_fusion: URLs of servers, asked in turn")
    concurrency: int = setting(16, "of sandbox_fusion: requests in flight", least=1, most=4096)
    attempts: int = setting(5, "of sandbox_fusion: tries of a request before the run ends for want of an executor", least=1)
    patience_s: float = setting(30.0, "of sandbox_fusion: seconds of an answer beyond the programs' limits", above=0, most=LONGEST_S)


@dataclass
class ClusterConfig:
    """What a recipe is made for: `azr-nemo plan`, `launch` and dry runs read it; a run itself has as many ranks as its launcher gives it, and takes from
    here only how many of them sample."""

    nodes: int = setting(1, "machines", least=1)
    gpus_per_node: int = setting(0, "GPUs of each; 0: CPU", least=0)
    gpu_memory_gb: int = setting(80, "GB of each GPU", least=1)
    sampler_ranks: int = setting(0, "of placement=split: how many of the run's ranks, the last ones, only sample", least=0)


@dataclass
class AlignerConfig:
    """What only engine=aligner has (docs/aligner.md). Its model.path is a .nemo file or a NeMo checkpoint folder."""

    micro_batch: int = setting(1, "rows of one micro-batch, padded to the step's longest", least=1)
    tokenizer: str = setting("", "the tokenizer's Hugging Face directory, where the one that the checkpoint names is not here", path=True)
    checkpoint_format: str = setting("zarr", "zarr, without a pickled index, or torch_dist", choices=("zarr", "torch_dist"))
    offload_optimizer: bool = setting(True, "to the host's memory while sampling, on GPUs with engine.distributed_optimizer")
    stop_strings: list[str] = setting([], "that end a response beside the end token")
    model_type: str = setting("llama", "of trtllm, as NeMo's exporter calls it: gpt, gptnext, llama, falcon, starcoder, mixtral, gemma")
    reshard: bool = setting(True, "of rollout=trtllm: sample with tensor parallelism alone, each pipeline stage as a replica")
    unload_engine: bool = setting(False, "of rollout=trtllm: free TensorRT-LLM's engine while training, and build it anew")


@dataclass
class RuntimeConfig:
    watchdog_s: float = setting(7200.0, "seconds that a rank waits for another, a batch's grading included", above=0, most=30 * LONGEST_S)
