"""The engine `aligner`: NeMo-Aligner 0.7's own PPOTrainer and MegatronGPTActorModel, extended with self-play, sandbox rewards and TRR++.

It lives in an environment of its own (NeMo 2.1, megatron-core 0.10; `make .venv-aligner/.installed`) and imports nothing of `azr_nemo.megatron`.
NeMo-Aligner takes half a minute to import: only `run.py` and what it needs do.
"""
