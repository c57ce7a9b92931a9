#!/usr/bin/env bash
# Submits a self-play run to Slurm, or with --dry-run prints the commands that would.
set -euo pipefail

usage() {
  cat << 'END'
launcher_scripts/slurm/submit.sh recipe=NAME [KEY=VALUE]... [--dry-run]

  recipe=NAME         a recipe, or the path of a YAML file; checked together with all settings before anything is queued
  nodes=N             nodes of the trainer            (the recipe's cluster.nodes)
  gpus=N              GPUs, and ranks, a node         (the recipe's cluster.gpus_per_node; 0: CPUs)
  ranks=N             ranks a node where gpus=0       (1)
  partition= account= qos= reservation= constraint= nodelist= exclude= mem= cpus= name= log=      as sbatch's options of these names
  time=4:00:00        time limit
  signal=300          seconds before the time limit at which the run is asked to end its step, save and stop
  requeue=yes         a stopped run goes back into the queue until it is done; no: it ends
  retries=0           how often a run that failed goes back into the queue
  chain=N             N jobs of one name, one after the other (--dependency=singleton), each going on where the one before stopped
  exclusive=yes       whole nodes
  fabric=NAME         infiniband, roce, ethernet, efa, slingshot, or the path of a file that sets the variables (none)
  container=IMAGE     an image for pyxis; without it the run uses .venv of the checkout or python3
  mounts=A:B,C:D      directories that the container sees besides the checkout
  python=PATH         interpreter of the run
  hetero=yes          a group of CPU nodes runs programs for the trainer's nodes; with sandbox_nodes=1 sandbox_cpus= sandbox_partition=
  sbatch="--a --b"    any other options of sbatch; quotes within hold words together: sbatch='--comment="my run"'

Every other KEY=VALUE is a setting of `azr-nemo train`: selfplay.steps=100 run_dir=/scratch/me/run
END
}

fail() {
  echo "submit.sh: $*" >&2
  exit 2
}

home=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
declare -A given=([requeue]=yes [exclusive]=yes [chain]=1 [hetero]=no [sandbox_nodes]=1)
dry_run=no
recipe=
settings=()
for argument in "$@"; do
  key=${argument%%=*}
  case $argument in
    -h | --help)
      usage
      exit 0
      ;;
    --dry-run) dry_run=yes ;;
    recipe=*)
      recipe=${argument#*=}
      if [[ $recipe == '~'/* ]]; then recipe=$HOME/${recipe#'~'/}; fi # the shell expands it at the start of a word alone
      # The job runs in the checkout, wherever it was submitted.
      if [[ $recipe == *.yaml || $recipe == *.yml ]]; then recipe=$(realpath --canonicalize-missing "$recipe"); fi
      settings+=("recipe=$recipe")
      ;;
    nodes=* | gpus=* | ranks=* | partition=* | account=* | qos=* | reservation=* | constraint=* | nodelist=* | exclude=* | mem=* | cpus=* | name=* | log=* | \
      time=* | signal=* | requeue=* | retries=* | chain=* | exclusive=* | fabric=* | container=* | mounts=* | python=* | hetero=* | sandbox_nodes=* | \
      sandbox_cpus=* | sandbox_partition=* | sbatch=*)
      given[$key]=${argument#*=}
      ;;
    *=*) settings+=("$argument") ;;
    *) fail "$argument is neither KEY=VALUE nor --dry-run: submit.sh --help lists the keys" ;;
  esac
done
[[ -n $recipe ]] || fail "recipe=NAME is missing: submit.sh --help lists the keys"
for key in nodes gpus ranks signal retries chain cpus sandbox_nodes sandbox_cpus; do
  [[ ${given[$key]:-0} =~ ^[0-9]+$ ]] || fail "$key=${given[$key]} is not a whole number"
done
for key in requeue exclusive hetero; do
  [[ ${given[$key]} =~ ^(yes|no)$ ]] || fail "$key=${given[$key]}: say yes or no"
done
((given[chain] >= 1)) || fail "chain=${given[chain]} must be at least 1"
((given[sandbox_nodes] >= 1)) || fail "sandbox_nodes=${given[sandbox_nodes]} must be at least 1"
if [[ -n ${given[fabric]:-} && ${given[fabric]} != */* && ! -r $home/launcher_scripts/slurm/env/${given[fabric]}.sh ]]; then
  known=("$home"/launcher_scripts/slurm/env/*.sh)
  known=("${known[@]##*/}")
  fail "fabric=${given[fabric]} is unknown: there are ${known[*]%.sh}, or give the path of a file"
fi

# The recipe says what it is made for, and wrong settings are found here, not after hours in the queue.
python=${given[python]:-}
if [[ -z $python && -x $home/.venv/bin/python ]]; then python=$home/.venv/bin/python; fi
read_recipe='
import sys
from azr_nemo.errors import UserError
from azr_nemo.planning.run_settings import load_settings
try:
    config = load_settings(sys.argv[1:])
except UserError as error:
    sys.exit(f"submit.sh: {error}")
print(config.cluster.nodes, config.cluster.gpus_per_node, config.engine.tensor_parallel * config.engine.pipeline_parallel)'
if [[ -n ${given[container]:-} && $home == *[,:]* ]]; then fail "$home cannot be mounted in a container: pyxis separates mounts by , and :"; fi
if [[ -n ${given[container]:-} ]] && ! (cd "$home" && "${python:-python3}" -c 'import azr_nemo.planning.run_settings') 2> /dev/null; then
  [[ -n ${given[nodes]:-} && -n ${given[gpus]:-} ]] || fail "here is no Python that reads recipes (make setup): give nodes=N and gpus=N"
  nodes=1 gpus=0 model_ranks=1
else
  made_for=$(cd "$home" && "${python:-python3}" -c "$read_recipe" "${settings[@]}") || exit 2
  read -r nodes gpus model_ranks <<< "$made_for"
fi
nodes=${given[nodes]:-$nodes}
gpus=${given[gpus]:-$gpus}
((nodes >= 1)) || fail "nodes=$nodes must be at least 1"
ranks=$gpus
if ((gpus == 0)); then ranks=${given[ranks]:-1}; fi
((ranks >= 1)) || fail "ranks=$ranks must be at least 1"
if ((nodes * ranks % model_ranks)); then
  fail "$nodes nodes of $ranks ranks cannot hold engine.tensor_parallel x engine.pipeline_parallel = $model_ranks: their product must be a multiple of it"
fi

environment=("AZR_HOME=$home" "AZR_RANKS=$ranks" "AZR_REQUEUE=${given[requeue]}")
if ((given[chain] > 1)); then environment[2]=AZR_REQUEUE=no; fi # the next link goes on
if [[ -n ${given[retries]:-} ]]; then environment+=("AZR_RETRIES=${given[retries]}"); fi
if [[ -n ${given[fabric]:-} ]]; then environment+=("AZR_FABRIC=${given[fabric]}"); fi
if [[ -n ${given[container]:-} ]]; then environment+=("AZR_CONTAINER=${given[container]}"); fi
if [[ -n ${given[mounts]:-} ]]; then environment+=("AZR_MOUNTS=${given[mounts]}"); fi
if [[ -n ${given[python]:-} ]]; then environment+=("AZR_PYTHON=${given[python]}"); fi

# Options of a whole job (for a heterogeneous one, of each group), then those of the trainer's nodes.
name=${given[name]:-azr-${recipe##*/}}
name=${name%.y*ml}
common=(--export=ALL "--job-name=$name" --open-mode=append "--time=${given[time]:-04:00:00}")
for key in account qos reservation; do
  if [[ -n ${given[$key]:-} ]]; then common+=("--$key=${given[$key]}"); fi
done
if [[ ${given[exclusive]} == yes ]]; then common+=(--exclusive); fi
if ((given[chain] > 1)); then common+=(--dependency=singleton); fi
# Split as a shell would, quotes and backslashes understood, but nothing in it is expanded or run.
split() { xargs -r printf '%s\0' <<< "${given[sbatch]:-}"; }
split &> /dev/null || fail "sbatch=${given[sbatch]}: a quote is not closed"
mapfile -d '' -t more < <(split)
common+=("${more[@]}")
job=("--signal=B:USR1@${given[signal]:-300}" "--output=${given[log]:-%x-%j.log}")
trainer=("--nodes=$nodes" --ntasks-per-node=1)
for key in partition constraint nodelist exclude mem; do
  if [[ -n ${given[$key]:-} ]]; then trainer+=("--$key=${given[$key]}"); fi
done
if [[ -n ${given[cpus]:-} ]]; then trainer+=("--cpus-per-task=${given[cpus]}"); fi
if ((gpus)); then trainer+=("--gpus-per-node=$gpus"); fi

command=(env "${environment[@]}" sbatch "${job[@]}")
if [[ ${given[hetero]} == yes ]]; then
  sandbox=("--nodes=${given[sandbox_nodes]}" --ntasks-per-node=1)
  if [[ -n ${given[sandbox_cpus]:-} ]]; then sandbox+=("--cpus-per-task=${given[sandbox_cpus]}"); fi
  if [[ -n ${given[sandbox_partition]:-${given[partition]:-}} ]]; then sandbox+=("--partition=${given[sandbox_partition]:-${given[partition]}}"); fi
  command+=("${common[@]}" "${sandbox[@]}" : "${common[@]}" "${trainer[@]}" "$home/launcher_scripts/slurm/azr-hetero.sbatch")
else
  command+=("${common[@]}" "${trainer[@]}" "$home/launcher_scripts/slurm/azr.sbatch")
fi
command+=("${settings[@]}")

for ((link = 1; link <= given[chain]; link++)); do
  if [[ $dry_run == yes ]]; then
    printf -v line '%q ' "${command[@]}"
    echo "${line% }"
  else
    "${command[@]}"
  fi
done
