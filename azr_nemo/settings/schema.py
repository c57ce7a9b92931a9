"""The typed schema of a run: every setting with its default, its unit, its bounds and its meaning; recipes only override (docs/settings.md)."""

from dataclasses import dataclass
from typing import ClassVar

from azr_nemo.settings.field import section, setting
from azr_nemo.settings.learning import AdvantageConfig, OptimConfig, RewardConfig, SelfPlayConfig
from azr_nemo.settings.learning import CompositeConfig as CompositeConfig
from azr_nemo.settings.learning import IntrinsicConfig as IntrinsicConfig
from azr_nemo.settings.machine import AlignerConfig, ClusterConfig, EngineConfig, ExecutorConfig, ModelConfig, RolloutConfig, RuntimeConfig


@dataclass
class DataConfig:
    seed_files: list[str] = setting([], "JSON lines in the reference's schema or ours", path=True)
    seed_factor: int = setting(4, "seeding stops at batch_size x this many valid tasks per type", least=1)
    seed_batch: int = setting(64, "proposals that seeding asks for at a time", least=1)
    seed_rounds: int = setting(50, "batches per type after which it gives up", least=1)


@dataclass
class WarmupConfig:
    """A short supervised warm start on generated easy tasks: a departure from zero data that a very small model needs."""

    steps: int = setting(0, "updates; 0: off", least=0)
    batch_size: int = setting(16, "rows of an update", least=1)
    lr: float = setting(2e-4, "learning rate", above=0)
    programs: int = setting(9000, "that are generated", least=100)
    seed: int = setting(1, "of the generator", least=0, most=2**63 - 1)


@dataclass
class CheckpointConfig:
    every: int = setting(10, "steps; the last step is always saved", least=1)
    keep: int = setting(2, "newest checkpoints that are kept", least=1)
    keep_every: int = setting(0, "checkpoints of steps divisible by this are kept for good; 0: none", least=0)
    asynchronous: bool = setting(True, "training goes on while a checkpoint is being written")


@dataclass
class AlarmsConfig:
    """When a metric `alarm/NAME` becomes 1 (azr_nemo/observe/alarms.py). A fall is from the run's highest mean over `window` steps, as a share of
    it. A threshold of 0 turns its alarm off."""

    window: int = setting(10, "steps that are averaged", least=1)
    diversity_fall: float = setting(0.3, "of the share of different ones among valid proposals", least=0, below=1, noun="share")
    duplicates: float = setting(0.5, "share of valid proposals that are in the buffer already", least=0, below=1, noun="share")
    format_fall: float = setting(0.3, "of the share of proposals and answers that can be read", least=0, below=1, noun="share")
    echoes: float = setting(0.5, "share of the answers to abduction tasks that repeat the output", least=0, below=1, noun="share")
    rollout_kl: float = setting(0.02, "nats a token between the rollout engine and the trainer", least=0)
    entropy_fall: float = setting(0.8, "of the entropy of a token", least=0, below=1, noun="share")


@dataclass
class LoggingConfig:
    rollouts: float = setting(1.0, "share of each step's rollouts that is written to run_dir/rollouts", least=0, most=1, noun="share")
    tensorboard: bool = setting(True, "write TensorBoard's event files")
    console: str = setting("auto", "how a run tells what it does", choices=("auto", "rich", "plain", "json"))
    samples_every: int = setting(10, "steps between those that show three sampled tasks, beginning with the first; 0: none", least=0)
    wandb: bool = setting(False, "Weights & Biases too; needs the extra [wandb]; its own variables hold, WANDB_API_KEY, WANDB_MODE ...")
    wandb_offline: bool = setting(False, "keep its files in the run directory, for `wandb sync`")
    wandb_project: str = setting("azr-nemo", "of Weights & Biases")
    wandb_run_id: str = setting("", "its run to go on with; empty: the one that run_dir/wandb.json names, else a new one")
    mlflow: bool = setting(False, "MLflow too; needs the extra [mlflow]; a resumed run goes on under the id in run_dir/mlflow.json")
    mlflow_uri: str = setting("", "the URI of its tracking server; empty: MLFLOW_TRACKING_URI")
    mlflow_experiment: str = setting("azr-nemo", "of MLflow")
    alarms: AlarmsConfig = section(AlarmsConfig)


@dataclass
class EvalConfig:
    every: int = setting(0, "steps; 0: only before the first and after the last step when items > 0", least=0)
    items: int = setting(0, "held-out tasks per task type from the warm start's generator; 0: off", least=0)
    suites: list[str] = setting([], "benchmarks, as of `azr-nemo eval`: [cruxeval_output, math500]")
    data: str = setting("data/eval", "what `azr-nemo data prepare` wrote", path=True, needed="give the directory")
    limit: int = setting(50, "items of each suite, always the same; 0: all", least=0)
    stop_if_worse: float = setting(0.0, "stop when held-out accuracy fell this far; 0: never", least=0, below=1, noun="share")


@dataclass
class RunConfig:
    COMMAND: ClassVar[str] = "train"
    recipe: str = setting("", "name or YAML file of the recipe")
    run_dir: str = setting("runs/${recipe}", "what the run writes", path=True, needed="give the directory that the run writes to")
    seed: int = setting(1, "of everything that is drawn", least=0, most=2**63 - 1)
    platform: str = setting("auto", "auto: cuda where there is a GPU", choices=("auto", "cpu", "cuda"))
    extensions: list[str] = setting(
        [],
        "modules or Python files that are imported before the settings are checked, on every rank, and add task types, ... (docs/extending.md)",
    )
    placement: str = setting(
        "colocated",
        "colocated: every rank trains and samples; split: the last cluster.sampler_ranks ranks sample while the others train (docs/scaling.md)",
        choices=("colocated", "split"),
    )
    resume: str = setting("auto", "auto: the latest checkpoint; never; or a path", path=True, needed="say auto, never or a path")
    model: ModelConfig = section(ModelConfig)
    engine: EngineConfig = section(EngineConfig)
    rollout: RolloutConfig = section(RolloutConfig)
    executor: ExecutorConfig = section(ExecutorConfig)
    reward: RewardConfig = section(RewardConfig)
    advantage: AdvantageConfig = section(AdvantageConfig)
    optim: OptimConfig = section(OptimConfig)
    selfplay: SelfPlayConfig = section(SelfPlayConfig)
    data: DataConfig = section(DataConfig)
    warmup: WarmupConfig = section(WarmupConfig)
    checkpoint: CheckpointConfig = section(CheckpointConfig)
    cluster: ClusterConfig = section(ClusterConfig)
    aligner: AlignerConfig = section(AlignerConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)
    logging: LoggingConfig = section(LoggingConfig)
    eval: EvalConfig = section(EvalConfig)

    @property
    def sampler_ranks(self) -> int:
        """Ranks that only sample, the last ones of the job."""
        return self.cluster.sampler_ranks if self.placement == "split" else 0
