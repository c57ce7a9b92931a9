#!/usr/bin/env bash
# What srun starts once on every node.
#
#   node.sh train SETTINGS...   torchrun with this node's ranks of `azr-nemo train`
#   node.sh sandbox             `azr-nemo sandbox serve`
#
# Slurm's TERM and USR1 mean: end the step, save, stop. Ranks are told once, by TERM; torchrun, which would give them 30 seconds, is not told
# at all. Some clusters signal every process of a step (proctrack/linuxproc; SignalChildrenProcesses in cgroup.conf), others only this one:
# a process that does nothing but die of a signal shows which.
# shellcheck disable=SC2317 # functions that a trap calls
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "${AZR_HOME:?the directory that the run starts in; the batch scripts set it}"

children_of() { # PID: its child processes. By /proc alone, as an image may have no ps.
  local file line fields
  for file in /proc/[0-9]*/stat; do
    { read -r line < "$file"; } 2> /dev/null || continue
    read -ra fields <<< "${line##*) }"
    if [[ ${fields[1]} == "$1" ]]; then echo "${line%% *}"; fi
  done
}

interface() { # the one with the default route, else the first but the loopback
  local name rest
  while read -r name rest; do
    if [[ $rest == 00000000* ]]; then echo "$name"; return; fi
  done < /proc/net/route
  while read -r name rest; do
    if [[ $name == *:* && $name != lo:* ]]; then echo "${name%%:*}"; return; fi
  done < /proc/net/dev
}

stop_ranks() {
  signals=$((signals + 1))
  if [[ $stopped == yes ]]; then return; fi
  stopped=yes
  sleep 0.5
  if kill -0 "$canary" 2> /dev/null; then # else the ranks have the signal already, and a second one would mean to stop at once
    local rank
    for rank in $(children_of "$child"); do kill -TERM "$rank" 2> /dev/null || true; done
  fi
}

said_stopped() { # SETTINGS...: whether the run wrote that it was stopped, in run_dir/outcome. Rank 0, perhaps elsewhere, writes it last of all.
  local run_dir outcome end=$((SECONDS + 20))
  run_dir=$("$python" -c 'import sys; from azr_nemo.planning.run_settings import load_settings; print(load_settings(sys.argv[1:]).run_dir)' "$@") || return 1
  until [[ -r $run_dir/outcome ]]; do
    if ((SECONDS >= end)); then return 1; fi
    sleep 0.5
  done
  read -r outcome < "$run_dir/outcome" && [[ $outcome == stopped* ]]
}

# Where gloo (commands, gathered samples) and NCCL's bootstrap listen. Left alone gloo takes the address of the host's name, which Debian's
# /etc/hosts makes 127.0.1.1, and NCCL may take a docker0: ranks of other nodes then cannot connect.
AZR_INTERFACE=${AZR_INTERFACE:-$(interface)}
export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$AZR_INTERFACE} NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$AZR_INTERFACE}
export NCCL_DEBUG=${NCCL_DEBUG:-WARN} # errors with their cause; INFO also says which adapters were chosen
# Megatron orders its communication and computation by the order in which they are launched, which only one connection keeps.
export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-1}
if [[ -n ${AZR_FABRIC:-} ]]; then
  fabric=$here/env/$AZR_FABRIC.sh
  if [[ $AZR_FABRIC == */* ]]; then fabric=$AZR_FABRIC; fi
  if [[ ! -r $fabric ]]; then
    echo "AZR_FABRIC=$AZR_FABRIC: there is no $fabric; give a name from launcher_scripts/slurm/env or the path of a file" >&2
    exit 2
  fi
  # shellcheck source=/dev/null
  source "$fabric"
fi
python=${AZR_PYTHON:-python3}
if [[ -z ${AZR_PYTHON:-}${AZR_CONTAINER:-} && -x $AZR_HOME/.venv/bin/python ]]; then python=$AZR_HOME/.venv/bin/python; fi

# What is ignored here is ignored by every child until it sets a handler, as rank 0 does: nothing dies of a signal that comes early.
trap '' TERM USR1
stopped=no
signals=0 # how many were handled
case ${1:-} in
  train)
    shift
    (
      trap - TERM USR1
      exec sleep infinity
    ) &
    canary=$!
    trap 'kill "$canary" 2> /dev/null || true' EXIT
    # The first node holds the store, whatever its interfaces are called; join_timeout: on some nodes an image takes minutes to start.
    is_host=$([[ ${SLURM_PROCID:-0} == 0 ]] && echo 1 || echo 0)
    # max-restarts=0: a rank that died takes the job with it; the queue and the checkpoint bring it back.
    "$python" -m torch.distributed.run --nnodes="${AZR_NODES:?}" --nproc-per-node="${AZR_RANKS:-${SLURM_GPUS_ON_NODE:-1}}" \
      --rdzv-backend=c10d --rdzv-endpoint="${AZR_HEAD:?}:${AZR_PORT:?}" --rdzv-id="${AZR_MEETING:?}" \
      --rdzv-conf="is_host=$is_host,join_timeout=900" --max-restarts=0 --signals-to-handle=SIGINT \
      -m azr_nemo train "$@" &
    child=$!
    trap stop_ranks TERM USR1
    ;;
  sandbox)
    # It outlives the run: a stop must not take the executor from a step that is to end. USR2 ends it.
    "$python" -m azr_nemo sandbox serve --host 0.0.0.0 --port "${AZR_PORT:?}" --workers "${AZR_SANDBOX_WORKERS:-0}" &
    child=$!
    trap 'signals=$((signals + 1)); kill -TERM "$child" 2> /dev/null || true' USR2
    ;;
  *)
    echo "usage: node.sh train SETTINGS... | node.sh sandbox" >&2
    exit 2
    ;;
esac

while before=$signals; do # a signal that is handled ends `wait` with a code of its own
  code=0
  wait "$child" || code=$?
  if ((signals == before)); then break; fi
done
if [[ $stopped == yes ]]; then
  # torchrun calls every exit code of a rank but 0 a failure, that of a run which was stopped and saved (75) too; the run's own word tells.
  if ((code != 0)) && said_stopped "$@"; then code=0; fi
  if ((code == 0)); then code=${AZR_STOPPED_CODE:-0}; fi
fi
exit "$code"
