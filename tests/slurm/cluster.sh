#!/usr/bin/env bash
# A Slurm cluster of a controller and two nodes inside this machine. Run as pid 1 of namespaces of its own:
#
#   WORK=$(mktemp -d) unshare --net --mount --pid --uts --ipc --fork --kill-child --mount-proc bash cluster.sh
#
# Each node is a network and a host name on a bridge. Once both are idle $WORK/ready appears; commands are then run with
# SLURM_CONF=$WORK/slurm.conf nsenter --all --target PID. It lasts until it is killed, and everything dies with it.
set -euo pipefail
WORK=${WORK:?}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export SLURM_CONF=$WORK/slurm.conf

hostname ctl
ip link set lo up
ip link add bridge0 type bridge
ip addr add 10.77.0.10/24 dev bridge0
ip link set bridge0 up
printf '127.0.0.1 localhost\n10.77.0.10 ctl\n10.77.0.11 node1\n10.77.0.12 node2\n' > "$WORK/hosts"
mount --bind "$WORK/hosts" /etc/hosts

mkdir -p "$WORK/state" "$WORK/dev" "$WORK/spool.node1" "$WORK/spool.node2"
sed "s,@WORK@,$WORK,; s,@PROCTRACK@,${PROCTRACK:-proctrack/linuxproc}," "$HERE/slurm.conf.in" > "$SLURM_CONF"
# slurmd 22.05 wants a cgroup plugin even where nothing uses it.
echo 'CgroupPlugin=cgroup/v1' > "$WORK/cgroup.conf"
for i in 0 1 2 3 4 5 6 7; do mknod "$WORK/dev/nvidia$i" c 1 3; done
echo "NodeName=node[1-2] Name=gpu File=$WORK/dev/nvidia[0-7]" > "$WORK/gres.conf"
: > "$WORK/plugstack.conf"
if [[ -e $WORK/pyxis_stub.so ]]; then echo "required $WORK/pyxis_stub.so" > "$WORK/plugstack.conf"; fi

mkdir -p /run/munge
mount -t tmpfs tmpfs /run/munge
chown munge:munge /run/munge
head -c 128 /dev/urandom > /run/munge/key
chown munge:munge /run/munge/key
chmod 400 /run/munge/key
setpriv --reuid munge --regid munge --clear-groups munged --key-file=/run/munge/key --log-file=/run/munge/log \
  --pid-file=/run/munge/pid --seed-file=/run/munge/seed

# until_true SECONDS COMMAND...: whether the command came true in that time.
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    if ((SECONDS >= end)); then return 1; fi
    sleep 0.2
  done
}
has_own_network() { [[ $(readlink /proc/self/ns/net) != "$(readlink "/proc/$1/ns/net")" ]]; }
controller_is_up() { scontrol ping 2> /dev/null | grep -q UP; }
both_are_idle() { [[ $(sinfo --noheader --states=idle --format=%D --partition=batch 2> /dev/null) == 2 ]]; }

slurmctld -c
until_true 30 controller_is_up || { echo "slurmctld did not start: $WORK/slurmctld.log" >&2; exit 1; }
for i in 1 2; do
  unshare --net --uts sleep infinity &
  node=$!
  echo "$node" > "$WORK/node$i.pid"
  until_true 10 has_own_network "$node" || exit 1
  ip link add "port$i" type veth peer name eth0 netns "$node"
  ip link set "port$i" master bridge0 up
  # slurmd goes into the background by itself.
  nsenter --target "$node" --net --uts bash -c "
    hostname node$i; ip link set lo up; ip addr add 10.77.0.1$i/24 dev eth0; ip link set eth0 up; exec slurmd -N node$i"
done
until_true 60 both_are_idle || { sinfo --Node --long; tail "$WORK"/slurm*.log; exit 1; } >&2
touch "$WORK/ready"
exec sleep infinity
