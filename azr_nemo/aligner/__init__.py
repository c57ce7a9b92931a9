"""The engine `aligner`: NeMo-Aligner 0.7's own PPOTrainer and MegatronGPTActorModel, extended with self-play, sandbox rewards and TRR++.

NeMo-Aligner is frozen: 0.7.0 of March 2025 is its last release and its README points to NeMo-RL, so this package follows no newer version. Self-play, its
driver, the executor, checkpoints' bookkeeping and the console are those of engine=megatron; here is only what NeMo-Aligner does its own way.
It lives in an environment of its own (NeMo 2.1, megatron-core 0.10; `make .venv-aligner/.installed`) and imports nothing of `azr_nemo.megatron`.
NeMo-Aligner takes half a minute to import: only `run.py` and what it needs do.
"""
