#!/usr/bin/env bash
# A Slurm cluster with this machine as its only node, for trying sweeps. Needs root and packages of Debian:
#
#   apt-get install --no-install-recommends slurmctld slurmd munge
#   experiments/sweeping/loopback_cluster.sh start /tmp/cluster
#   export SLURM_CONF=/tmp/cluster/slurm.conf
#   python -m experiments.sweep --config=FILE --executor=slurm
#   experiments/sweeping/loopback_cluster.sh stop /tmp/cluster
#
# All its files are in the folder. It uses no systemd and no accounting, so squeue lists an ended job
# for five minutes only. `start` again starts only the daemons that aren't running.
set -euo pipefail

fail() { echo "error: $*" >&2; exit 2; }

[ $# -eq 2 ] || fail "usage: loopback_cluster.sh start|stop FOLDER"
mkdir -p "$2"
FOLDER=$(cd "$2" && pwd)
export SLURM_CONF=$FOLDER/slurm.conf

running() {  # NAME: whether the daemon with the process id in NAME/pid is alive
  local pid
  pid=$(cat "$FOLDER/$1/pid" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ]
}

configure() {
  mkdir -p "$FOLDER"/{munged,slurmctld/state,slurmd/spool}
  chmod 755 "$FOLDER" "$FOLDER/munged"
  if [ ! -f "$FOLDER/munged/key" ]; then
    (umask 077 && head -c 1024 /dev/urandom > "$FOLDER/munged/key")
  fi
  chown -R munge: "$FOLDER/munged"
  # proctrack/pgid and task/none need no cgroups; SlurmUser=root lets it run jobs of any user.
  cat > "$SLURM_CONF" <<CONF
ClusterName=loopback
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$FOLDER/munged/socket
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldPidFile=$FOLDER/slurmctld/pid
SlurmdPidFile=$FOLDER/slurmd/pid
SlurmctldLogFile=$FOLDER/slurmctld/log
SlurmdLogFile=$FOLDER/slurmd/log
StateSaveLocation=$FOLDER/slurmctld/state
SlurmdSpoolDir=$FOLDER/slurmd/spool
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc)
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

start() {
  [ "$(id -u)" -eq 0 ] || fail "run it as root."
  for program in munged slurmctld slurmd; do
    command -v "$program" > /dev/null ||
      fail "$program not found: apt-get install --no-install-recommends slurmctld slurmd munge"
  done
  running slurmctld || configure
  if ! running munged; then
    (cd "$FOLDER/munged" && runuser -u munge -- munged --socket="$PWD/socket" \
      --key-file="$PWD/key" --seed-file="$PWD/seed" --pid-file="$PWD/pid" --log-file="$PWD/log")
  fi
  running slurmctld || slurmctld
  running slurmd || slurmd
  for _ in $(seq 60); do
    if sinfo --noheader --format=%t 2> /dev/null | grep -qE "idle|mix|alloc"; then
      echo "The cluster is running: export SLURM_CONF=$SLURM_CONF"
      return
    fi
    sleep 1
  done
  fail "the node did not start; see the logs in $FOLDER/slurmctld and $FOLDER/slurmd."
}

stop() {
  for name in slurmd slurmctld munged; do
    if running "$name"; then
      kill "$(cat "$FOLDER/$name/pid")"
      while running "$name"; do sleep 0.2; done
    fi
  done
  echo "The cluster is stopped."
}

case $1 in
  start) start ;;
  stop) stop ;;
  *) fail "usage: loopback_cluster.sh start|stop FOLDER" ;;
esac
