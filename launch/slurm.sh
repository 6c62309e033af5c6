#!/usr/bin/env bash
# A run as a job of a SLURM cluster, which continues after preemptions and at its
# time limit. `bash launch/slurm.sh` prints the commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
. launch/common.sh

name=gr2_jax nodes=1 gpus='' per=gpu time='' log='' job='' dry_run=false

help_all() {
  cat <<'END'
bash launch/slurm.sh COMMAND ...

  submit   queue a job that runs the pipeline
  list     print its state
  delete   end it

Every command takes --dry_run, which prints the commands that it would run and
runs none, and --help. The environment must stand before: on a node that sees
the package index, `bash launch/setup.sh` and
`.venv/bin/pip install "jax[cuda13]>=0.10.2,<0.13"`, in a checkout that all nodes
see under the same path. Partition, account and the like are sbatch's own:
export SBATCH_PARTITION and SBATCH_ACCOUNT.

The job queues itself again when a higher one preempts it, when a node fails,
and two minutes before its time limit: finished stages are skipped, the others
continue. An error of the pipeline ends it.
END
}

help_submit() {
  cat <<'END'
bash launch/slurm.sh submit --gpus=8 --time=24:00:00 [--nodes=2] ... -- \
  --config=configs/NAME.py --workdir=/SHARED/DIR [--stages=A,B] \
  [--config.KEY=VALUE]

Runs `python -m launch.pipeline` with what stands behind --, one task for each GPU;
the processes find each other by SLURM's variables.
  --gpus   GPUs of each node; 0 for CPU only, one task for each node
  --time   limit of one turn, as sbatch takes it: 90, 24:00:00, 2-00:00:00
  --nodes  how many; 1
  --per    gpu: one task for each GPU; node: one for each node, with all its GPUs
  --name   of the job; gr2_jax
  --log    file that all turns append to; slurm-JOB.log here
END
}

help_list() {
  echo 'bash launch/slurm.sh list --job=JOB'
  echo 'Prints the state of a job; JOB is the number that submit printed.'
}

help_delete() {
  echo 'bash launch/slurm.sh delete --job=JOB'
  echo 'Ends a job; the workdir stays.'
}

# What the job runs, in one line. SLURM signals the tasks, a preemption this
# shell too: it must not end before them. Tasks have five minutes from the first
# that ends, so that all of them can save.
job_line() {
  local line="trap : TERM; $(quote srun --wait=300 "$@"); status=\$?;"
  line+=" if [ \$status -eq $preempted_status ]; then"
  line+=' scontrol requeue $SLURM_JOB_ID; fi; exit $status'
  echo "$line"
}

do_submit() {
  parse submit 'name= nodes= gpus= per= time= log= --' "$@"
  check name '[A-Za-z0-9._-]+' gr2_jax
  check nodes '[1-9][0-9]*' 2
  check gpus '[0-9]+' 8
  check per 'gpu|node' node
  check time '[0-9]+(-[0-9]+)?(:[0-9]+){0,2}' 24:00:00
  check_pipeline
  need sbatch 'it comes with SLURM: go to a login node'
  need .venv/bin/python 'bash launch/setup.sh, then the JAX of the GPUs'
  local tasks=1 step=()
  local options=(
    "--job-name=$name" "--nodes=$nodes" "--time=$time" "--chdir=$PWD"
    "--output=${log:-slurm-%j.log}" --open-mode=append
    # Warned before the limit, two minutes in which to save.
    --requeue --signal=TERM@120
  )
  if [ "$gpus" -gt 0 ]; then
    options+=("--gpus-per-node=$gpus")
    if [ "$per" = gpu ]; then
      tasks=$gpus
    else
      # JAX takes one GPU for each task of SLURM where it is not told.
      step+=(env "JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((gpus - 1)))")
    fi
  fi
  options+=("--ntasks-per-node=$tasks")
  step+=(.venv/bin/python -m launch.pipeline --coordinator=auto "${pipeline[@]}")
  run sbatch "${options[@]}" "--wrap=$(job_line "${step[@]}")"
}

do_list() {
  parse list 'job=' "$@"
  check job '[0-9]+' 1234
  need sacct 'it comes with SLURM: go to a login node'
  run sacct "--jobs=$job" --duplicates --format=JobID,State,Elapsed,ExitCode
}

do_delete() {
  parse delete 'job=' "$@"
  check job '[0-9]+' 1234
  need scancel 'it comes with SLURM: go to a login node'
  run scancel "$job"
}

dispatch 'submit list delete' "$@"
