#!/usr/bin/env bash
# One slice of Cloud TPU VMs: make it, run the pipeline on all its workers, resume
# after a preemption. `bash launch/tpu_vm.sh` prints the commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
. launch/common.sh

readonly archive=gr2_jax.tar.gz
readonly mount=/mnt/gr2
name='' zone='' project='' type='' runtime='' nfs=''
spot=false dry_run=false packed='' asked='' node=''
readonly where='name= zone= project='
readonly share='[A-Za-z0-9.-]+:/[A-Za-z0-9_./-]*'

help_all() {
  cat <<'END'
bash launch/tpu_vm.sh COMMAND --name=NAME --zone=ZONE [--project=PROJECT] ...

  create   request a slice, wait until it is there
  copy     copy the project to all workers and install it
  run      run the pipeline on all workers
  resume   after a preemption: make what is missing, copy, run
  status   print the state of the request
  delete   give the slice back

Every command takes --dry_run, which prints the commands that it would run and
runs none, and --help. --project defaults to that of `gcloud config`. A new run:

  bash launch/tpu_vm.sh resume --name=NAME --zone=ZONE --type=v5litepod-16 \
    --spot --nfs=SERVER:/SHARE -- --config=configs/beauty.py \
    --workdir=/mnt/gr2/runs/beauty

and again, as often as it takes: finished stages are skipped, the others continue.
`until bash launch/tpu_vm.sh resume ...; do sleep 60; done` does it unattended;
an error of the pipeline itself then comes back each time, so read it.

The workdir must outlive the workers and be one directory for all of them, raw
data (--config.data.dir) too: NFS (Filestore), which --nfs mounts at /mnt/gr2.
Buckets do not do: a gs:// path is refused, and gcsfuse renames files without
the guarantees that stages rely on.
END
}

help_create() {
  cat <<'END'
bash launch/tpu_vm.sh create --name=NAME --zone=ZONE --type=TYPE [--spot] ...

Requests a slice as a queued resource and waits until it is active.
  --type     accelerator type, such as v5litepod-16, v5p-8, v6e-8
  --runtime  runtime version; by default the one of the type's generation
  --spot     cheaper, and preempted at any time
END
}

help_copy() {
  cat <<'END'
bash launch/tpu_vm.sh copy --name=NAME --zone=ZONE [--nfs=SERVER:/SHARE]

Copies the project as it is here, without what git ignores, to ~/gr2_jax on all
workers, makes ~/gr2_jax/.venv with Python 3.12 and jax[tpu], and mounts the
share.
  --nfs  share to mount at /mnt/gr2
END
}

help_run() {
  cat <<'END'
bash launch/tpu_vm.sh run --name=NAME --zone=ZONE -- --config=configs/NAME.py \
  --workdir=/mnt/gr2/DIR [--stages=A,B] [--config.KEY=VALUE]

Runs `python -m launch.pipeline` with what stands behind -- on all workers, and
shows their output until it ends. The processes find each other.
END
}

help_resume() {
  cat <<'END'
bash launch/tpu_vm.sh resume --name=NAME --zone=ZONE --type=TYPE [--spot] \
  --nfs=SERVER:/SHARE -- --config=configs/NAME.py --workdir=/mnt/gr2/DIR

Looks at the slice: one that was preempted, stopped or failed is deleted and
requested again, one that is missing is requested, one that waits in the queue
is waited for. Then it copies and runs. Flags as for create, copy and run.
END
}

help_status() {
  echo 'bash launch/tpu_vm.sh status --name=NAME --zone=ZONE'
  echo 'Prints the states of the request and of its TPU VM.'
}

help_delete() {
  echo 'bash launch/tpu_vm.sh delete --name=NAME --zone=ZONE'
  echo 'Deletes the request and its TPU VM with all that is on its disks.'
}

check_where() {
  check name '[a-z]([-a-z0-9]{0,61}[a-z0-9])?' beauty-1
  check zone '[a-z]+-[a-z]+[0-9]+-[a-z]' us-east5-b
  if [ -n "$project" ]; then
    check project '[a-z][-a-z0-9:.]+[a-z0-9]' my-project
  fi
  need gcloud https://cloud.google.com/sdk/docs/install
}

check_type() {
  check type '[a-z0-9]+-[0-9]+' v5litepod-16
  if [ -n "$runtime" ]; then return; fi
  case $type in
    v2-* | v3-* | v4-*) runtime=tpu-ubuntu2204-base ;;
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *)
      fail "--type=$type is of a generation whose runtime is not known here:" \
        "name it by --runtime=VERSION (gcloud compute tpus tpu-vm versions list)."
      ;;
  esac
}

check_nfs() {
  if [ -n "$nfs" ]; then
    check nfs "$share" 10.0.0.2:/share
  fi
}

# tpus GROUP COMMAND ARGUMENT...: runs gcloud with zone and project.
tpus() {
  local command=(gcloud compute tpus "$@" "--zone=$zone")
  if [ -n "$project" ]; then command+=("--project=$project"); fi
  run "${command[@]}"
}

# Prints the state of the request or of its TPU VM; nothing where there is none.
state_of() {
  local field=state found said
  if [ "$1" = queued-resources ]; then field=state.state; fi
  if [ "$dry_run" = true ]; then
    tpus "$1" describe "$name" "--format=value($field)"
    return
  fi
  said=$(mktemp)
  if found=$(tpus "$1" describe "$name" "--format=value($field)" 2>"$said"); then
    echo "$found"
  elif ! grep -q NOT_FOUND "$said"; then
    cat "$said" >&2
    rm "$said"
    return 1
  fi
  rm "$said"
}

wait_until_active() {
  note 'every 30 seconds, until it says ACTIVE:'
  if [ "$dry_run" = true ]; then
    state_of queued-resources
    return
  fi
  local found
  while true; do
    found=$(state_of queued-resources)
    echo "$name: request ${found:-missing}"
    case $found in
      ACTIVE) return ;;
      CREATING | ACCEPTED | PROVISIONING | WAITING_FOR_RESOURCES) sleep 30 ;;
      *)
        fail "The request $name is ${found:-gone} while it was waited for:" \
          "see why (gcloud compute tpus queued-resources describe $name" \
          "--zone=$zone), then run resume again."
        ;;
    esac
  done
}

request() {
  local options=("--node-id=$name" "--accelerator-type=$type"
    "--runtime-version=$runtime")
  if [ "$spot" = true ]; then options+=(--spot); fi
  tpus queued-resources create "$name" "${options[@]}"
  wait_until_active
}

remove() {
  tpus queued-resources delete "$name" --force --quiet
}

on_all() {
  tpus tpu-vm ssh "$name" --worker=all "--command=$1"
}

# What is to be done on each worker, as one line for a shell.
installation() {
  local steps=(
    'mkdir -p gr2_jax'
    "tar -xzf $archive -C gr2_jax"
    'cd gr2_jax'
    '([ -x .venv/bin/python ] || (python3 -m pip install --quiet --user uv'
    'python3 -m uv venv --quiet --seed --python 3.12 .venv))'
    'bash launch/setup.sh'
    ".venv/bin/python -m pip install --quiet 'jax[tpu]>=0.10.2,<0.13'"
  )
  if [ -n "$nfs" ]; then
    steps+=(
      'sudo apt-get install -y -qq nfs-common'
      "sudo mkdir -p $mount"
      "(mountpoint -q $mount || sudo mount -t nfs $nfs $mount)"
      # A new share belongs to root.
      "sudo chown \$USER $mount"
    )
  fi
  local line
  line=$(printf ' && %s' "${steps[@]}")
  echo "${line:4}"
}

transfer() {
  note "with the files of this folder that git does not ignore in $archive:"
  if [ "$dry_run" = false ]; then
    packed=$(mktemp -d)
    trap 'rm -rf "$packed"' EXIT
    pack | gzip >"$packed/$archive"
    cd "$packed"
  fi
  tpus tpu-vm scp "$archive" "$name:$archive" --worker=all
  on_all "$(installation)"
}

start() {
  on_all "cd gr2_jax && exec .venv/bin/python -m launch.pipeline $(
    quote --coordinator=auto "${pipeline[@]}"
  )"
}

do_create() {
  parse create "$where type= runtime= spot" "$@"
  check_where
  check_type
  request
}

do_copy() {
  parse copy "$where nfs=" "$@"
  check_where
  check_nfs
  transfer
}

do_run() {
  parse run "$where --" "$@"
  check_where
  check_pipeline
  start
}

do_status() {
  parse status "$where" "$@"
  check_where
  if [ "$dry_run" = true ]; then
    state_of queued-resources
    state_of tpu-vm
    return
  fi
  look
}

do_delete() {
  parse delete "$where" "$@"
  check_where
  remove
}

do_resume() {
  parse resume "$where type= runtime= spot nfs= --" "$@"
  check_where
  check_type
  check nfs "$share" 10.0.0.2:/share
  check_pipeline
  if [[ $workdir != "$mount"/* ]]; then
    fail "--workdir=$(quote "$workdir") does not lie on the share, and would be" \
      "lost with the workers: put it below $mount."
  fi
  make_ready
  transfer
  start
}

# Sets `asked` and `node`, the states of the request and of its TPU VM.
look() {
  asked=$(state_of queued-resources)
  node=$(state_of tpu-vm)
  echo "$name: request ${asked:-missing}, TPU VM ${node:-missing}"
}

# Brings the slice into being, from whatever state it is in.
make_ready() {
  if [ "$dry_run" = true ]; then
    state_of queued-resources
    state_of tpu-vm
    note 'where the request is SUSPENDED or FAILED, or its TPU VM not READY:'
    remove
    note 'there, and where there is no request:'
    request
    note 'in any case:'
    return
  fi
  while true; do
    look
    case $asked,$node in
      SUSPENDING,* | DELETING,* | ACTIVE,CREATING | ACTIVE,STARTING | \
        ACTIVE,RESTARTING | ACTIVE,REPAIRING | ,DELETING) sleep 30 ;;
      *) break ;;
    esac
  done
  case $asked,$node in
    ACTIVE,READY) ;;
    ACTIVE,* | SUSPENDED,* | FAILED,* | PREEMPTED,* | *,PREEMPTED)
      remove
      request
      ;;
    ,) request ;;
    ,*)
      fail "The TPU VM $name is $node, but no request of this name made it:" \
        "give another --name, or delete it (gcloud compute tpus tpu-vm delete" \
        "$name --zone=$zone)."
      ;;
    *) wait_until_active ;;
  esac
}

dispatch 'create copy run resume status delete' "$@"
