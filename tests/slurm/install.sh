#!/usr/bin/env bash
# Installs what tests/slurm needs, where that can be done; where it cannot, says why, and the tests skip.
set -euo pipefail
needed=(slurmctld slurmd slurm-client munge iproute2 shellcheck libslurm-dev gcc)
if [[ $(id -u) != 0 ]] || ! command -v apt-get > /dev/null; then
  echo "not root on a Debian or Ubuntu: nothing is installed for the Slurm tests (${needed[*]})"
  exit 0
fi
missing=()
for package in "${needed[@]}"; do
  if ! dpkg-query --show --showformat='${db:Status-Status}' "$package" 2> /dev/null | grep -qx installed; then missing+=("$package"); fi
done
if ((${#missing[@]})); then
  echo "installing ${missing[*]}"
  # RUNLEVEL=1: the packages' own services are not started; the tests run daemons of their own in namespaces of their own.
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends "${missing[@]}"; } > /dev/null 2>&1 ||
    echo "${missing[*]} could not be installed: the Slurm tests will skip"
fi
