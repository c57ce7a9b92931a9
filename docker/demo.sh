#!/bin/sh
# What `make demo` runs: STEPS steps of the default recipe at a quarter of its size, then its summary. A stop is passed on, so that the run saves its step.
set -u
run_dir="${RUN_DIR:-/runs/demo}"
azr-nemo train recipe=smollm2_135m-1n0g-megatron "run_dir=$run_dir" "selfplay.steps=${STEPS:-3}" \
  selfplay.batch_size=32 data.seed_batch=48 eval.items=12 checkpoint.every=3 &
run=$!
trap 'kill -TERM $run' TERM INT
code=0
wait "$run" || code=$?
while kill -0 "$run" 2>/dev/null; do # a signal ends `wait`, not the run
  code=0
  wait "$run" || code=$?
done
[ "$code" = 0 ] || exit "$code"
exec azr-nemo summary "$run_dir"
