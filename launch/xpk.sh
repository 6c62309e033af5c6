#!/usr/bin/env bash
# A run as a workload of a GKE cluster with TPUs, through xpk.
# `bash launch/xpk.sh` prints the commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
. launch/common.sh

name='' cluster='' zone='' project='' type='' slices=1 storage=''
image=python:3.12 restarts=50 dry_run=false folder=''
readonly where='name= cluster= zone= project='

help_all() {
  cat <<'END'
bash launch/xpk.sh COMMAND --name=NAME --cluster=CLUSTER --zone=ZONE
  [--project=PROJECT] ...

  create   start a workload that runs the pipeline
  list     print the state of the workload
  logs     follow what its processes print
  delete   end it

Every command takes --dry_run, which prints the commands that it would run and
runs none, and --help. It needs xpk (pip install xpk), Docker, kubectl, and a
cluster that `xpk cluster create` made.

The workdir must be one directory for all processes that outlives them: a
Filestore that `xpk storage create` or `attach` added to the cluster. Buckets do
not do: a gs:// path is refused, and gcsfuse renames files without the
guarantees that stages rely on.

A workload that is preempted starts again, up to --restarts times: finished
stages are skipped, the others continue.
END
}

help_create() {
  cat <<'END'
bash launch/xpk.sh create --name=NAME --cluster=CLUSTER --zone=ZONE --type=TYPE \
  --storage=STORAGE -- --config=configs/NAME.py --workdir=/MOUNT/DIR \
  [--stages=A,B] [--config.KEY=VALUE]

Puts the project as it is here, without what git ignores, into an image, and
runs `python -m launch.pipeline` with what stands behind -- in it, on each host.
  --type      type of TPU, such as v5litepod-16, v5p-8, v6e-8
  --slices    how many of them; 1 by default
  --storage   attached storage that the workdir lies on; may be left out where
              it is mounted by itself (--auto-mount=true)
  --image     image to build on, with Python 3.11 or newer; python:3.12
  --restarts  how often it may start again; 50
END
}

help_list() {
  echo 'bash launch/xpk.sh list --name=NAME --cluster=CLUSTER --zone=ZONE'
  echo 'Prints the state of the workload.'
}

help_logs() {
  echo 'bash launch/xpk.sh logs --name=NAME --cluster=CLUSTER --zone=ZONE'
  echo 'Follows what all processes print, each line behind its pod.'
}

help_delete() {
  echo 'bash launch/xpk.sh delete --name=NAME --cluster=CLUSTER --zone=ZONE'
  echo 'Ends the workload and forgets it; the workdir stays.'
}

check_where() {
  check name '[a-z]([-a-z0-9]{0,37}[a-z0-9])?' beauty-1
  check cluster '[a-z]([-a-z0-9]{0,38}[a-z0-9])?' my-cluster
  check zone '[a-z]+-[a-z]+[0-9]+(-[a-z])?' us-east5-b
  if [ -n "$project" ]; then
    check project '[a-z][-a-z0-9:.]+[a-z0-9]' my-project
  fi
  need xpk 'pip install xpk'
}

# xpk_workload COMMAND ARGUMENT...: with cluster, zone and project.
xpk_workload() {
  local command=(xpk workload "$@" "--cluster=$cluster" "--zone=$zone")
  if [ -n "$project" ]; then command+=("--project=$project"); fi
  run "${command[@]}"
}

do_create() {
  parse create "$where type= slices= storage= image= restarts= --" "$@"
  check_where
  check type '[a-z0-9]+-[0-9]+' v5litepod-16
  check slices '[1-9][0-9]*' 2
  check image '[a-z0-9][A-Za-z0-9._/:@-]*' python:3.12
  check restarts '[0-9]+' 50
  if [ -n "$storage" ]; then
    check storage '[a-z]([-a-z0-9]*[a-z0-9])?' my-filestore
  fi
  check_pipeline
  note 'with the files of this folder that git does not ignore in gr2_jax:'
  if [ "$dry_run" = false ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    mkdir "$folder/gr2_jax"
    pack | tar -x -C "$folder/gr2_jax"
    cd "$folder"
  fi
  # xpk passes signals on to the process that it started: hence exec.
  local command='bash launch/setup.sh'
  command+=" && .venv/bin/python -m pip install --quiet 'jax[tpu]>=0.10.2,<0.13'"
  command+=" && exec .venv/bin/python -m launch.pipeline $(
    quote --coordinator=auto "${pipeline[@]}"
  )"
  local options=(
    "--workload=$name" "--tpu-type=$type" "--num-slices=$slices"
    "--base-docker-image=$image" --script-dir=gr2_jax
    "--max-restarts=$restarts" "--restart-on-exit-codes=$preempted_status"
    # Time to save in.
    --termination-grace-period-seconds=300
    "--command=$command"
  )
  if [ -n "$storage" ]; then options+=("--storage=$storage"); fi
  xpk_workload create "${options[@]}"
}

do_list() {
  parse list "$where" "$@"
  check_where
  xpk_workload list "--filter-by-job=$name"
}

do_logs() {
  parse logs "$where" "$@"
  check_where
  need kubectl 'gcloud components install kubectl'
  # It also points kubectl to the cluster.
  xpk_workload list "--filter-by-job=$name"
  run kubectl logs "--selector=jobset.sigs.k8s.io/jobset-name=$name" \
    --all-containers --prefix --tail=-1 --follow --max-log-requests=256
}

do_delete() {
  parse delete "$where" "$@"
  check_where
  xpk_workload delete "--workload=$name" --force
}

dispatch 'create list logs delete' "$@"
