# shellcheck shell=bash
# What the batch scripts share; sourced by them. A run ends in one of three ways, and `finish` tells them apart:
#
#   it ended by itself            the job ends with its exit code (after a failure AZR_RETRIES may requeue it)
#   it was asked to stop          USR1, which Slurm sends --signal seconds before the time limit: it ends its step and saves; the job is requeued
#   Slurm ends the job            TERM: cancelled, or preempted by requeueing; the run saves what it can within KillWait; Slurm does the rest
#
# A run that is requeued although it was done says so and ends at once, so nothing goes round for ever.

AZR_SLURM=$AZR_HOME/launcher_scripts/slurm
AZR_REQUEUE=${AZR_REQUEUE:-yes} # yes: a run that was stopped before the time limit or in a grace time goes back into the queue
AZR_RETRIES=${AZR_RETRIES:-0}   # how often a run that failed goes back into the queue
AZR_PORT=${AZR_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
export AZR_HOME AZR_PORT

signals=0      # how many were handled
stop_asked=no  # whether USR1 came
trainer=       # the process of the trainer's srun
servers=       # that of the sandbox servers'
exit_code=0

say() { echo "$(date +%FT%T) ${0##*/}: $*"; }

# Slurm's signals come to this shell; its own children get them from Slurm only as part of a step.
pass_on_stop() {
  signals=$((signals + 1))
  stop_asked=yes
  say "USR1: the run ends its step, saves and stops"
  if [[ -n $trainer ]]; then kill -USR1 "$trainer" || say "the trainer has already ended"; fi
}
trap pass_on_stop USR1
let_it_end() {
  signals=$((signals + 1))
  say "TERM: Slurm is ending this job; the run saves within the time that Slurm leaves it"
}
trap let_it_end TERM

# pyxis' options; none without AZR_CONTAINER.
container_flags=()
if [[ -n ${AZR_CONTAINER:-} ]]; then
  container_flags=(
    "--container-image=$AZR_CONTAINER"
    # The home directory stays out: a ~/.local of the host would shadow the image's packages.
    --no-container-mount-home
    "--container-mounts=$AZR_HOME:$AZR_HOME${AZR_MOUNTS:+,$AZR_MOUNTS}"
    "--container-workdir=$AZR_HOME"
  )
fi

# await PID: its exit code in `exit_code`. A signal that is handled ends `wait` with a code of its own; the wait then goes on.
await() {
  local before
  while before=$signals; do
    exit_code=0
    wait "$1" || exit_code=$?
    if ((signals == before)); then return; fi
  done
}

# step NODES OPTIONS... COMMAND... &: becomes an srun of one task on each node of the group, which may use all that the job has there.
step() {
  local nodes=$1
  shift
  # Without --cpu-bind=none the one task of a node, and so all of its ranks, could be bound to a single processor.
  exec srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=1 "${container_flags[@]}" "$@"
}

# train NODELIST OPTIONS... -- SETTINGS...: the trainer on these nodes; its exit code in `exit_code`.
train() {
  local nodes options=()
  mapfile -t nodes < <(scontrol show hostnames "$1")
  shift
  while [[ $1 != -- ]]; do
    options+=("$1")
    shift
  done
  shift
  # Of the restart count too: ranks that a restart left behind must not meet the new ones.
  export AZR_NODES=${#nodes[@]} AZR_HEAD=${nodes[0]} AZR_MEETING=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}
  say "start ${SLURM_RESTART_COUNT:-0} of job $SLURM_JOB_ID on $AZR_NODES nodes (${nodes[*]}): azr-nemo train $*"
  if [[ $stop_asked == no ]]; then
    step "$AZR_NODES" "${options[@]}" bash "$AZR_SLURM/node.sh" train "$@" &
    trainer=$!
    await "$trainer"
    trainer=
  fi
}

# serve_sandbox NODELIST OPTIONS...: a sandbox server on each of these nodes; waits until they listen; their URLs in SANDBOX_URLS.
serve_sandbox() {
  local node nodes
  mapfile -t nodes < <(scontrol show hostnames "$1")
  shift
  # A token that nobody else has, unless the user brought one.
  AZR_NEMO_SANDBOX_TOKEN=${AZR_NEMO_SANDBOX_TOKEN:-$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')}
  export AZR_NEMO_SANDBOX_TOKEN
  step "${#nodes[@]}" "$@" bash "$AZR_SLURM/node.sh" sandbox &
  servers=$!
  SANDBOX_URLS=
  for node in "${nodes[@]}"; do
    until_it_listens "$node" "$AZR_PORT"
    SANDBOX_URLS+="${SANDBOX_URLS:+,}'http://$node:$AZR_PORT'"
  done
  say "sandbox servers: $SANDBOX_URLS"
}

until_it_listens() {
  local end=$((SECONDS + ${AZR_SANDBOX_WAIT_S:-300}))
  until (exec 3<> "/dev/tcp/$1/$2") 2> /dev/null; do
    if ! kill -0 "$servers" 2> /dev/null; then
      say "a sandbox server ended before it listened: see its message above"
      exit_code=1
      finish
    fi
    if ((SECONDS >= end)); then
      say "the sandbox server of $1 does not listen on port $2 after ${AZR_SANDBOX_WAIT_S:-300} s: is the port blocked between the groups?"
      exit_code=1
      finish
    fi
    sleep 1
  done
}

# finish: ends the servers, then the job, back into the queue or for good.
finish() {
  local code=$exit_code job restarts=${SLURM_RESTART_COUNT:-0}
  if [[ -n $servers ]]; then
    kill -USR2 "$servers" 2> /dev/null || true # see node.sh
    await "$servers"
  fi
  job=$(scontrol show job --oneliner "$SLURM_JOB_ID")
  # A preemption with a grace time only signals the steps, and a job that ends within it is not requeued by Slurm.
  if [[ $job == *PreemptTime=[0-9]* ]]; then stop_asked=yes; fi
  if [[ ${job%%$'\n'*} != *JobState=RUNNING* ]]; then # the first line is the job itself, or the leader of its groups
    say "the run ended with exit code $code; Slurm is ending the job"
  elif [[ $stop_asked == yes && $AZR_REQUEUE == yes ]]; then
    say "the run was stopped (exit code $code): back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
  elif ((code != 0 && restarts < AZR_RETRIES)); then
    say "the run failed with exit code $code: try $((restarts + 1)) of AZR_RETRIES=$AZR_RETRIES"
    scontrol requeue "$SLURM_JOB_ID"
  else
    say "the run ended with exit code $code"
  fi
  exit "$code"
}
