#!/usr/bin/env bash
# Mixed-R1 on a Slurm allocation: starts Ray on its nodes, trains, and leaves nothing behind.
#
#   sbatch --nodes=2 docker/slurm.sh experiment=... run_dir=/shared/runs/first cache_dir=/shared/cache
#
# Arguments are those of `mixed-r1 train`; cluster=ray is added. 15 minutes before the allocation ends Slurm sends SIGTERM:
# the run ends its step, saves, and leaves with exit code 75, and the job is requeued and goes on. Secrets, such as
# WANDB_API_KEY, come with the environment of sbatch and are never written or echoed here.
#
# Settings, as environment variables:
#   MIXED_R1_PYTHON      Python with the packages (default: python)
#   MIXED_R1_INTERFACE   network interface between nodes, such as ib0 or bond0 (default: that of the first
#                        address of hostname -I)
#   MIXED_R1_REQUEUES    how often one job may be requeued (default: 50)
#SBATCH --job-name=mixed-r1
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@900
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=mixed-r1-%j.log
set -euo pipefail

python=${MIXED_R1_PYTHON:-python}
interface=${MIXED_R1_INTERFACE:-}
max_requeues=${MIXED_R1_REQUEUES:-50}
join_s=600
saved_and_left=75

die() {
    printf 'slurm.sh: %s\n' "$1" >&2
    exit 2
}

[ -n "${SLURM_JOB_ID:-}" ] || die "not inside a Slurm job; start it with sbatch docker/slurm.sh experiment=..."
case " $* " in
*" run_dir=/"*) ;;
*) die "name run_dir from the root, on storage that all nodes share: run_dir=/shared/runs/first" ;;
esac
command -v "$python" >/dev/null || die "$python is not on the PATH; set MIXED_R1_PYTHON to the Python that has the packages"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
gpus=${SLURM_GPUS_ON_NODE:-0}
cpus=${SLURM_CPUS_ON_NODE:-1}
# A port of this job's own, should nodes be shared; Ray chooses the others itself.
port=$((20000 + SLURM_JOB_ID % 10000))
temp_dir=/tmp/ray-$SLURM_JOB_ID

# Ray listens in the cluster's network, where other people's jobs run as well; only who holds this token is answered.
umask 077
token_file=$HOME/.mixed-r1-ray-$SLURM_JOB_ID
"$python" -c 'import secrets; print(secrets.token_hex(32), end="")' >"$token_file"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token_file
export RAY_USAGE_STATS_ENABLED=0

if [ -n "$interface" ]; then
    export NCCL_SOCKET_IFNAME=$interface GLOO_SOCKET_IFNAME=$interface
fi

# Prints the address under which other nodes reach this one; runs on the node itself.
address_of() {
    # shellcheck disable=SC2016  # expands on the node
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$1" bash -c '
        if [ -n "$1" ]; then
            ip -4 -oneline address show dev "$1" | awk "{ sub(\"/.*\", \"\", \$4); print \$4; exit }"
        else
            hostname -I | awk "{ print \$1 }"
        fi' _ "$interface"
}

steps=()
start_ray() {
    local node=$1 address=$2
    shift 2
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" --output="mixed-r1-$SLURM_JOB_ID-ray-$node.log" \
        "$python" -m ray.scripts.scripts start --block --node-ip-address="$address" \
        --num-gpus="$gpus" --num-cpus="$cpus" --disable-usage-stats "$@" &
    steps+=("$!")
}

clean_up() {
    trap - EXIT
    # srun passes the signal on to its step, and Slurm ends what a step leaves behind.
    for step in "${steps[@]}"; do
        kill -TERM "$step" 2>/dev/null || true
    done
    wait || true
    rm -f "$token_file"
    srun --overlap --nodes="${#nodes[@]}" --ntasks="${#nodes[@]}" rm -rf "$temp_dir" || true
}
trap clean_up EXIT

head_address=$(address_of "${nodes[0]}")
[ -n "$head_address" ] || die "no IPv4 address found on ${nodes[0]}; set MIXED_R1_INTERFACE"
start_ray "${nodes[0]}" "$head_address" --head --port="$port" --include-dashboard=false --temp-dir="$temp_dir"
for node in "${nodes[@]:1}"; do
    address=$(address_of "$node")
    [ -n "$address" ] || die "no IPv4 address found on $node; set MIXED_R1_INTERFACE"
    start_ray "$node" "$address" --address="$head_address:$port"
done

# The run would refuse a cluster that is smaller than its plan, so every node must have joined.
"$python" - "$head_address:$port" "${#nodes[@]}" "$join_s" <<'PYTHON' || die "not every node joined Ray within $join_s s; see mixed-r1-$SLURM_JOB_ID-ray-*.log"
import sys
import time

import ray

address, wanted, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
deadline = time.monotonic() + seconds
while True:
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        break
    except (ConnectionError, RuntimeError):
        if time.monotonic() > deadline:
            raise
        time.sleep(2)
while sum(node["Alive"] for node in ray.nodes()) < wanted:
    if time.monotonic() > deadline:
        sys.exit(1)
    time.sleep(2)
PYTHON

"$python" -m orchestration.cli train cluster=ray "cluster.address=$head_address:$port" "$@" &
training=$!
trap 'kill -TERM "$training" 2>/dev/null || true' TERM
code=0
wait "$training" || code=$?
# A signal that this shell caught ends `wait`, not the training.
while kill -0 "$training" 2>/dev/null; do
    code=0
    wait "$training" || code=$?
done

if [ "$code" -eq "$saved_and_left" ]; then
    if [ "${SLURM_RESTART_COUNT:-0}" -lt "$max_requeues" ]; then
        echo "slurm.sh: the run saved itself; requeued as $SLURM_JOB_ID"
        clean_up
        scontrol requeue "$SLURM_JOB_ID"
    else
        echo "slurm.sh: the run saved itself; requeued $max_requeues times already (MIXED_R1_REQUEUES)"
    fi
fi
exit "$code"
