"""The default engine: a Megatron GPTModel trained on CPU or GPU at any tensor, pipeline and data parallelism."""

import warnings

# Megatron warns on import of every optional accelerator that is absent (APEX, TransformerEngine, CUDA settings); `azr-nemo doctor` says
# what a machine has.
warnings.filterwarnings("ignore", category=UserWarning, module=r"(megatron|.*megatron_fsdp)\b.*")
