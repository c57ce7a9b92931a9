"""Bytes that one rank needs, part by part, as the trainer and the rollout engines allocate them.

Exact where the code says exactly what is kept (weights, gradients, optimizer, what autograd saves: tests compare with the real model), and a
bound where lengths decide. Sizes are bytes, and GB are 10**9: a GPU sold as 80 GB has about 85 of them, and what lies between is left to
CUDA, NCCL and fragmentation.
"""

from dataclasses import dataclass

from azr_nemo.planning.parameters import stage_adapters, stage_parameters, total_parameters, vocabulary_parameters
from azr_nemo.planning.sizing import SHORT, Sizing

FP32 = 4
# Of vLLM's three processes on a CPU before they hold weights or a cache, measured with vLLM 0.32.
SERVER_BYTES = 1_700_000_000
# Elements of the head's blocks of fp32 logits, on a CPU and on a GPU (azr_nemo.megatron.head), of which two are there at a time.
BLOCKS = {False: 2**20, True: 2**27}
# Of the decode `torch`: columns that its cache grows by, and tokens of one prefill batch (azr_nemo.rollout.torch).
CHUNK, PREFILL_TOKENS = 64, 8192
VACANT = 4
# Of each byte that a CPU's step allocates for moments, what glibc's heap grows beside it. Before 2.38 an aligned block that was freed is too small
# to be handed out again for the same size (its request is padded), so tensors of a step are laid between holes: measured with glibc 2.36, docs/scaling.md.
HOLES = 0.85


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank. activations: what autograd keeps; scratch: what a training step needs beside it for moments, the head's logits above
    all. replica: the rollout engine's weights. cache: keys and values. reserved: the cache stays while the trainer learns (trtllm, vllm). asleep: the
    replica's weights do not (torch). offloaded: of the gradients, what is not there while sampling. holes: of each byte that comes and goes, how
    many more a CPU's heap takes. snapshot: host memory while a checkpoint is written, of this rank's part of it; on the device it takes nothing."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    scratch: int
    replica: int
    cache: int
    reserved: bool = False
    asleep: bool = False
    holes: float = 0.0
    offloaded: int = 0
    snapshot: int = 0

    @property
    def state(self) -> int:
        """What is there at all times."""
        return self.weights + self.gradients + self.optimizer + self.replica

    @property
    def step(self) -> int:
        """What a training step allocates beside the state, at its peak."""
        return self.activations + self.scratch

    @property
    def training(self) -> int:
        state = self.state - (self.replica if self.asleep else 0)
        return state + round(self.step * (1 + self.holes)) + (self.cache if self.reserved else 0)

    @property
    def generating(self) -> int:
        return self.state - self.offloaded + round(self.cache * (1 + self.holes))

    @property
    def peak(self) -> int:
        return max(self.training, self.generating)


def memory(size: Sizing) -> Memory:
    """Of the rank that needs most of those that train: that of the pipeline stage with the highest peak."""
    return max((stage_memory(size, stage) for stage in range(size.layout.pipeline)), key=lambda found: found.peak)


def sampler_memory(size: Sizing) -> Memory:
    """Of a rank that samples; where others do nothing else, of one of those."""
    if not size.samplers:
        return memory(size)
    replica = replica_bytes(size)
    holes = 0.0 if size.accelerated else HOLES
    return Memory(0, 0, 0, 0, 0, replica, _rollout_cache(size, replica), size.rollouts.pooled, False, holes)


def _rollout_cache(size: Sizing, held: int) -> int:
    """Keys and values on a rank that has `held` bytes already when the rollout engine starts."""
    if not size.rollouts.pooled:
        return decode_bytes(size)
    if size.padded:
        # NeMo-Aligner's engine has room for its rows, and stays.
        return cache_bytes(size, size.rollouts.rows * (size.rollouts.prompt + size.rollouts.response))
    if not size.accelerated:
        return size.rollouts.pool
    return int(size.rollouts.fraction * max(0, size.capacity - held))


def stage_memory(size: Sizing, stage: int) -> Memory:
    """Of a rank of one pipeline stage."""
    parameters = stage_parameters(size.model, size.layout.tensor, size.layout.pipeline, stage)
    adapters = stage_adapters(size.model, size.lora, size.layout.tensor, size.layout.pipeline)
    frozen = vocabulary_parameters(size.model, size.layout.tensor) * (1 if size.model.tied else 2) if size.frozen else 0
    learnt = adapters or parameters - frozen
    weights, gradients = (parameters + adapters) * size.width, learnt * FP32
    masters = learnt * FP32 if size.width < FP32 else 0
    moments = 2 * learnt * FP32
    shards = size.layout.data if size.distributed_optimizer else 1
    replica = cache = 0
    if not size.samplers:
        replica = replica_bytes(size)
        # A pool is taken when it starts, which is before the first update makes Adam's moments.
        cache = _rollout_cache(size, weights + gradients + masters // shards + replica)
    reserved = size.rollouts.pooled and not size.samplers
    activations, scratch = training_bytes(size, stage)
    asleep = size.rollouts.name == "torch"
    holes = 0.0 if size.accelerated else HOLES
    offloaded = gradients if size.offload_gradients and not size.padded else 0
    optimizer = (masters + moments) // shards
    return Memory(
        weights,
        gradients,
        optimizer,
        activations,
        scratch,
        replica,
        cache,
        reserved,
        asleep,
        holes,
        offloaded,
        snapshot=weights + optimizer,
    )


def kept_by_layer(size: Sizing, tokens: int) -> int:
    """Bytes that one layer keeps of `tokens` tokens for its backward pass, on one tensor-parallel rank."""
    model, cut = size.model, size.layout.tensor
    hidden = model.hidden // cut if size.layout.sequence_parallel else model.hidden
    queries, keys = model.heads * model.head_dim // cut, model.kv_heads * model.head_dim // cut
    numbers = 4 * hidden  # both normalisations keep their input, both projections behind them theirs
    numbers += queries + 2 * keys  # the fused projection's output, of which the values are a view
    numbers += queries + keys  # both after their rotation
    if not size.accelerated:
        numbers += 4 * model.head_dim  # its cosines and sines, for both; the fused kernel keeps what all layers share
    numbers += queries  # the output projection's input
    scales = 2.0
    if model.qk_norm:
        numbers += queries
        scales += (model.heads + model.kv_heads) / cut
    if size.accelerated:
        # TransformerEngine's attention keeps its output, which the projection takes as it is, and one fp32 number a head. The fused SwiGLU keeps its
        # input (2), the projection behind it the product.
        scales += model.heads / cut
        numbers += 3 * model.ffn // cut
    else:
        numbers += 3 * model.ffn // cut
        if size.batch.row <= SHORT:
            numbers += model.heads * size.batch.row // cut
        else:
            numbers += queries
            scales += model.heads / cut
    return int(tokens * (numbers * size.width + scales * FP32))


def training_bytes(size: Sizing, stage: int) -> tuple[int, int]:
    """(activations, scratch) of a training step on a stage, at its peak. The schedule is 1F1B: the first stage has most micro-batches in
    flight, the last one alone has the head."""
    model, layout, batch = size.model, size.layout, size.batch
    flying = min(layout.pipeline - stage, size.micro_batches)
    layers, first, last = model.layers // layout.pipeline, stage == 0, stage == layout.pipeline - 1
    one = kept_by_layer(size, batch.tokens)
    hidden = model.hidden // layout.tensor if layout.sequence_parallel else model.hidden
    stream = batch.tokens * hidden * size.width
    activations = flying * layers * (stream if size.recompute else one)
    # A stage of several keeps what it sent until its gradient comes back; the last one keeps the final normalisation's input.
    activations += flying * stream if layout.pipeline > 1 or last else 0
    # Of the feed-forward product. That of the attention comes when this one's part is gone, and takes two copies of one row's scores.
    backward = batch.tokens * 4 * model.ffn // layout.tensor
    if size.accelerated and not size.padded:
        # Fused: the gradient of the product and of both halves, when the product itself is gone; or later the input gathered again, and its gradient.
        gathered = 2 * model.hidden - model.ffn // layout.tensor if layout.sequence_parallel else 0
        backward = batch.tokens * max(2 * model.ffn // layout.tensor, gathered)
    if not size.accelerated and batch.row <= SHORT:
        backward = max(backward, (2 * model.heads * batch.row**2 - 3 * batch.tokens * model.ffn) // layout.tensor)
    # Weights' gradients: the largest, until it is added up in fp32; a GPU's products add them up themselves, and keep one dummy of each shape.
    largest = 2 * model.ffn * model.hidden // layout.tensor
    heads = 2 * model.heads + 2 * model.kv_heads
    dummies = (
        (3 * model.ffn + heads * model.head_dim) * model.hidden // layout.tensor * size.width if size.accelerated and not size.padded else 0
    )
    layer = (batch.tokens * 2 * hidden + backward + (0 if dummies else largest)) * size.width
    if size.recompute:
        layer += one  # one layer at a time is computed again
    if not last:
        return activations, layer + dummies
    table = vocabulary_parameters(model, layout.tensor) * size.width
    states = batch.learnt * model.hidden * size.width
    logits = batch.learnt * (model.padded_vocab(layout.tensor) // layout.tensor)
    block = logits if size.padded else min(logits, BLOCKS[size.accelerated])
    # Two blocks while probabilities are taken; later the gradients of hidden states and table, and where the table is padded one of the whole of it.
    head = logits * size.width + states + max(2 * FP32 * block, states + table * (1 + (model.padded_vocab(layout.tensor) > model.vocab)))
    if size.fp32_logits and size.width < FP32:
        # Logits, and the gradients of hidden states and table before they are rounded, are twice as wide.
        head += logits * (FP32 - size.width) + 2 * (states + table)
    # A tied embedding's gradient from the head waits for the one from the first layer.
    waiting = table if model.tied and first else 0
    return activations + states, max(head, layer + waiting) + dummies


def replica_bytes(size: Sizing) -> int:
    """The rollout engine's weights on one rank. On a CPU the decode packs the head's weights, as vLLM does, so a tied model has
    them twice."""
    if size.rollouts.name == "nemo":
        return 0  # the trainer's own weights
    count = total_parameters(size.model)
    if not size.accelerated and size.model.tied and size.rollouts.name in ("torch", "vllm"):
        count += vocabulary_parameters(size.model)
    if not size.accelerated and size.rollouts.name == "vllm":
        # Its processes, and the weights that were handed over last, in shared memory.
        return SERVER_BYTES + (count + total_parameters(size.model)) * size.width
    return count * size.width // size.rollouts.tensor


def cache_bytes(size: Sizing, tokens: int) -> int:
    """Keys and values of `tokens` tokens on one GPU of a replica. More GPUs than kv heads each keep a copy of one."""
    model = size.model
    if size.rollouts.name == "nemo":
        return 2 * model.layers * model.kv_heads * model.head_dim * size.width * tokens // size.rollouts.tensor
    heads = max(1, model.kv_heads // size.rollouts.tensor)
    return 2 * model.layers * heads * model.head_dim * size.width * tokens


def decode_bytes(size: Sizing) -> int:
    """What the decodes in this process need at most beside their weights: keys and values of all rows at their longest, those of the prompts
    that are joining, one prefill's activations, and the logits with the fp32 probabilities that are drawn from."""
    rollouts, model = size.rollouts, size.model
    rows = min(rollouts.rows, rows_of_rank(size))
    longest = -(-(rollouts.prompt + rollouts.response) // CHUNK) * CHUNK
    # All rows join at first; later the vacated quarter does, into a cache at its longest, one layer of which is there twice.
    joining = cache_bytes(size, rows * rollouts.prompt)
    full = cache_bytes(size, rows * longest)
    cache = max(2 * joining, full + full // model.layers + joining // VACANT)
    tokens = min(max(PREFILL_TOKENS, rollouts.prompt), rows * rollouts.prompt)
    prefill = tokens * (3 * model.ffn + 2 * model.hidden + 2 * model.heads * model.head_dim) * size.width
    drawing = rows * model.vocab * (size.width + 2 * FP32)
    return cache + max(prefill, drawing)


def rows_of_rank(size: Sizing) -> int:
    """Samples that one replica is asked for at a time, in the largest phase."""
    work = size.work
    phases = ((work.propose, 1), (work.estimate, work.estimate_samples), (work.solve, work.solve_samples))
    return max(-(-prompts // size.replicas) * samples for prompts, samples in phases)


def checkpoint_bytes(parameters: int, width: int) -> int:
    """A checkpoint of the trainer on disk, whatever the layout: weights, fp32 masters where the weights are not, and Adam's moments."""
    return parameters * (width + (FP32 if width < FP32 else 0) + 2 * FP32)
