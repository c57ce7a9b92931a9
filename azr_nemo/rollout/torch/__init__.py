"""Our own decode for Llama, Qwen2 and Qwen3: fused weights, a cache shaped for the matrix kernels, one prefill for all samples of a prompt."""
