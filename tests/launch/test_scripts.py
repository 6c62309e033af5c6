"""The scripts for clusters, beside programs that only record their calls."""

import os
import pathlib
import shlex
import shutil
import subprocess
import tarfile

import pytest

from gr2_jax.train import preemption

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Answers `describe` by the next line of a file by group, the last one for ever;
# an empty line: there is no such thing.
FAKE = """\
#!/usr/bin/env bash
{ printf '%s' "$(basename "$0")"; printf '\\0%s' "$@"; echo; } >> "$CALLS/calls"
case "$*" in
  *' scp '*) cp gr2_jax.tar.gz "$CALLS" ;;
  *--script-dir=gr2_jax*) cp -r gr2_jax "$CALLS/packed" ;;
  *'tpus '*' describe '*)
    answer=$(head -n 1 "$CALLS/$3")
    if [ "$(wc -l < "$CALLS/$3")" -gt 1 ]; then sed -i 1d "$CALLS/$3"; fi
    if [ -z "$answer" ]; then echo "NOT_FOUND: no such thing" >&2; exit 1; fi
    echo "$answer"
    ;;
esac
"""
PIPELINE = [
  '--config=configs/beauty.py:literature',
  '--workdir=/mnt/gr2/my runs/beauty',
  "--config.data.name=it's $HOME",
]
TPU = ['--name=b-1', '--zone=us-east5-b']
RESUME = ['resume', *TPU, '--type=v6e-8', '--spot', '--nfs=10.0.0.2:/share']
XPK = ['--name=b-1', '--cluster=c', '--zone=us-east5', '--project=p-1']
SUBMIT = ['submit', '--gpus=8', '--time=1-00:00:00', '--nodes=2']
# A command of each kind, with the programs that it runs.
COMMANDS = {
  'create': ('tpu_vm', ['create', *TPU, '--type=v5p-8', '--project=p-1']),
  'copy': ('tpu_vm', ['copy', *TPU, '--nfs=10.0.0.2:/share']),
  'run': ('tpu_vm', ['run', *TPU, '--', *PIPELINE]),
  'status': ('tpu_vm', ['status', *TPU]),
  'delete': ('tpu_vm', ['delete', *TPU]),
  'workload': (
    'xpk',
    ['create', *XPK, '--type=v6e-8', '--storage=f', '--', *PIPELINE],
  ),
  'workloads': ('xpk', ['list', *XPK]),
  'logs': ('xpk', ['logs', *XPK]),
  'end': ('xpk', ['delete', *XPK]),
  'submit': ('slurm', [*SUBMIT, '--', *PIPELINE]),
  'by node': ('slurm', [*SUBMIT, '--per=node', '--', *PIPELINE]),
  'job': ('slurm', ['list', '--job=12']),
  'cancel': ('slurm', ['delete', '--job=12']),
}


def _script(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


@pytest.fixture
def fakes(tmp_path):
  """A folder of programs that record their calls."""
  programs = 'gcloud xpk kubectl sbatch sacct scancel sleep srun scontrol'
  for program in programs.split():
    _script(tmp_path / 'bin' / program, FAKE)
  return tmp_path


def _run(script, *arguments, fakes=None, path=None):
  folder = [] if fakes is None else [str(fakes / 'bin')]
  return subprocess.run(
    ['bash', str(ROOT / 'launch' / f'{script}.sh'), *arguments],
    env={
      **os.environ,
      'PATH': path or os.pathsep.join([*folder, os.environ['PATH']]),
      'CALLS': str(fakes),
    },
    capture_output=True,
    text=True,
    timeout=60,
  )


def _printed(script, *arguments):
  """Returns the commands of a dry run; nothing may be called by it."""
  found = _run(script, arguments[0], '--dry_run', *arguments[1:])
  assert (found.returncode, found.stderr) == (0, '')
  lines = found.stdout.splitlines()
  return [shlex.split(line) for line in lines if not line.startswith('#')]


def _called(fakes):
  lines = (fakes / 'calls').read_text().splitlines()
  return [line.split('\0') for line in lines]


def _states(fakes, request, node):
  (fakes / 'queued-resources').write_text('\n'.join(request) + '\n')
  (fakes / 'tpu-vm').write_text('\n'.join(node) + '\n')


def _option(command, flag):
  (value,) = [a for a in command if a.startswith(f'{flag}=')]
  return value.removeprefix(f'{flag}=')


@pytest.mark.parametrize('name', COMMANDS)
def test_a_dry_run_prints_what_is_run(name, fakes):
  script, arguments = COMMANDS[name]
  _states(fakes, ['ACTIVE'], ['READY'])
  found = _run(script, *arguments, fakes=fakes)
  assert found.returncode == 0, found.stderr
  called = _called(fakes)
  assert called == _printed(script, *arguments)
  # Also said while it is done, but for questions.
  said = [shlex.split(line) for line in found.stderr.splitlines()]
  assert said == [call for call in called if 'describe' not in call]


def test_a_slice_is_requested_as_asked_for():
  command, poll = _printed(*COMMANDS['create'][:1], *COMMANDS['create'][1])
  assert command == [
    *('gcloud', 'compute', 'tpus', 'queued-resources', 'create', 'b-1'),
    *('--node-id=b-1', '--accelerator-type=v5p-8'),
    *('--runtime-version=v2-alpha-tpuv5', '--zone=us-east5-b'),
    '--project=p-1',
  ]
  assert poll[3:6] == ['queued-resources', 'describe', 'b-1']
  spot, _ = _printed('tpu_vm', 'create', *TPU, '--type=v6e-8', '--spot')
  assert '--spot' in spot and '--runtime-version=v2-alpha-tpuv6e' in spot
  named, _ = _printed(
    'tpu_vm', 'create', *TPU, '--type=tpu7x-8', '--runtime=mine'
  )
  assert '--runtime-version=mine' in named


def test_a_request_is_waited_for(fakes):
  _states(fakes, ['WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE'], [''])
  found = _run(*COMMANDS['create'][:1], *COMMANDS['create'][1], fakes=fakes)
  assert found.returncode == 0
  assert found.stdout.splitlines() == [
    f'b-1: request {state}'
    for state in ('WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE')
  ]
  assert sum(call == ['sleep', '30'] for call in _called(fakes)) == 2


def test_a_request_that_fails_is_an_error(fakes):
  _states(fakes, ['ACCEPTED', 'FAILED'], [''])
  found = _run(*COMMANDS['create'][:1], *COMMANDS['create'][1], fakes=fakes)
  assert found.returncode == 2
  assert 'The request b-1 is FAILED while it was waited for' in found.stderr


_RECREATE = ['delete', 'create']


@pytest.mark.parametrize(
  ('request_', 'node', 'changes'),
  [
    (['ACTIVE'], ['READY'], []),
    # Preempted: the TPU VM says so first, then the request.
    (['ACTIVE'], ['PREEMPTED'], _RECREATE),
    (['PREEMPTED', 'ACTIVE'], [''], _RECREATE),
    (['SUSPENDING', 'SUSPENDED', 'ACTIVE'], ['PREEMPTED'], _RECREATE),
    (['FAILED', 'ACTIVE'], [''], _RECREATE),
    (['ACTIVE'], ['TERMINATED'], _RECREATE),
    (['', 'ACTIVE'], [''], ['create']),
    (['WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE'], [''], []),
    (['ACTIVE'], ['STARTING', 'READY'], []),
  ],
)
def test_resume_goes_on_from_any_state(request_, node, changes, fakes):
  _states(fakes, request_, node)
  found = _run('tpu_vm', *RESUME, '--', *PIPELINE, fakes=fakes)
  assert found.returncode == 0, found.stderr
  called = [call for call in _called(fakes) if call[0] == 'gcloud']
  doing = [call[4] for call in called if call[4] != 'describe']
  assert doing == [*changes, 'scp', 'ssh', 'ssh']
  # Nothing that the dry run does not name.
  printed = _printed('tpu_vm', *RESUME, '--', *PIPELINE)
  assert all(call in printed for call in called)
  assert called[-1] == printed[-1]


def test_the_states_are_told(fakes):
  _states(fakes, ['SUSPENDED'], [''])
  found = _run('tpu_vm', *COMMANDS['status'][1], fakes=fakes)
  assert found.stdout == 'b-1: request SUSPENDED, TPU VM missing\n'


def test_a_tpu_vm_of_others_is_left_alone(fakes):
  _states(fakes, [''], ['READY'])
  found = _run('tpu_vm', *RESUME, '--', *PIPELINE, fakes=fakes)
  assert found.returncode == 2
  assert 'no request of this name made it' in found.stderr
  assert {call[4] for call in _called(fakes)} == {'describe'}


def test_an_error_of_gcloud_ends_it(fakes):
  _script(fakes / 'bin' / 'gcloud', '#!/bin/sh\necho no login >&2\nexit 7\n')
  found = _run('tpu_vm', *RESUME, '--', *PIPELINE, fakes=fakes)
  assert found.returncode == 1
  assert found.stderr.endswith('no login\n')
  found = _run('tpu_vm', *COMMANDS['run'][1], fakes=fakes)
  assert found.returncode == 7


def test_what_is_copied_is_the_project(fakes):
  script, arguments = COMMANDS['copy']
  assert _run(script, *arguments, fakes=fakes).returncode == 0
  with tarfile.open(fakes / 'gr2_jax.tar.gz') as archive:
    names = set(archive.getnames())
  assert {'launch/pipeline.py', 'requirements.txt'} <= names
  assert not any(name.startswith('.venv') for name in names)
  script, arguments = COMMANDS['workload']
  assert _run(script, *arguments, fakes=fakes).returncode == 0
  packed = fakes / 'packed'
  files = {str(p.relative_to(packed)) for p in packed.rglob('*') if p.is_file()}
  assert files == names


def _python(folder, status=0):
  """Puts a Python there that records its arguments and ends with a status."""
  _script(
    folder / '.venv' / 'bin' / 'python',
    f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/arguments\nexit {status}\n',
  )


def _given(folder):
  return (folder / 'arguments').read_text().splitlines()


def _shell(command, cwd, fakes):
  path = f'{fakes / "bin"}{os.pathsep}{os.environ["PATH"]}'
  return subprocess.run(
    ['bash', '-c', command],
    cwd=cwd,
    env={**os.environ, 'PATH': path, 'CALLS': str(fakes), 'SLURM_JOB_ID': '12'},
  ).returncode


EXPECTED = ['-m', 'launch.pipeline', '--coordinator=auto', *PIPELINE]


def test_workers_get_the_arguments_as_they_were(fakes):
  (command,) = _printed('tpu_vm', *COMMANDS['run'][1])
  _python(fakes / 'gr2_jax')
  assert _shell(_option(command, '--command'), fakes, fakes) == 0
  assert _given(fakes / 'gr2_jax') == EXPECTED


def test_workloads_get_the_arguments_as_they_were(fakes):
  (command,) = _printed('xpk', *COMMANDS['workload'][1])
  _python(fakes)
  _script(fakes / 'launch' / 'setup.sh', '')
  assert _shell(_option(command, '--command'), fakes, fakes) == 0
  assert _given(fakes) == EXPECTED


@pytest.mark.parametrize('per', ['gpu', 'node'])
@pytest.mark.parametrize(
  ('status', 'requeued'), [(0, False), (1, False), (75, True)]
)
def test_a_job_goes_back_to_the_queue_when_preempted(
  per, status, requeued, fakes
):
  (command,) = _printed('slurm', *SUBMIT, f'--per={per}', '--', *PIPELINE)
  assert {'--requeue', '--signal=TERM@120', '--open-mode=append'} <= set(
    command
  )
  tasks = {'gpu': 8, 'node': 1}[per]
  assert f'--ntasks-per-node={tasks}' in command
  _python(fakes, status)
  _script(
    fakes / 'bin' / 'srun',
    '#!/bin/sh\nshift\n"$@"\nstatus=$?\n'
    'printf "%s" "$JAX_LOCAL_DEVICE_IDS" > "$CALLS/devices"\nexit $status\n',
  )
  assert _shell(_option(command, '--wrap'), fakes, fakes) == status
  assert _given(fakes) == EXPECTED
  calls = fakes / 'calls'
  expected = [['scontrol', 'requeue', '12']] if requeued else []
  assert (_called(fakes) if calls.exists() else []) == expected
  assert (
    'JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7' in _option(command, '--wrap')
  ) == (per == 'node')


def test_exit_status_and_flag_are_those_of_the_pipeline():
  text = (ROOT / 'launch' / 'common.sh').read_text()
  assert f'\nreadonly preempted_status={preemption.EXIT_CODE}\n' in text
  assert "'coordinator'" in (ROOT / 'launch' / 'cluster.py').read_text()


RUN = ['run', *TPU, '--']


@pytest.mark.parametrize(
  ('script', 'arguments', 'message'),
  [
    ('tpu_vm', ['start'], 'There is no command start: use one of create copy'),
    ('tpu_vm', ['delete'], '--name is missing: give it, as in --name=beauty-1'),
    ('tpu_vm', ['delete', '--name=B 1'], "--name='B 1' does not match"),
    ('tpu_vm', ['delete', '--name=b', '--zone=east'], '--zone=east does not'),
    ('tpu_vm', ['delete', '--name'], '--name has no value: write --name=VALUE'),
    ('tpu_vm', ['delete', '--spot'], 'delete does not take --spot: its flags'),
    ('tpu_vm', ['delete', 'b-1'], 'delete does not take b-1: its flags are'),
    ('tpu_vm', ['delete', '--name=a\nb'], 'holds a line break: leave it out'),
    ('tpu_vm', ['create', *TPU], '--type is missing'),
    ('tpu_vm', ['create', *TPU, '--type=v9-8'], 'name it by --runtime=VERSION'),
    ('tpu_vm', ['copy', *TPU, '--nfs=share'], '--nfs=share does not match'),
    ('tpu_vm', RUN, 'The pipeline has no config'),
    ('tpu_vm', [*RUN, '--config=no.py'], 'there is no file no.py in'),
    ('tpu_vm', [*RUN, PIPELINE[0]], "--workdir='' is not absolute"),
    ('tpu_vm', [*RUN, PIPELINE[0], '--workdir=runs'], 'is not absolute'),
    ('tpu_vm', [*RUN, PIPELINE[0], '--workdir=gs://b/x'], 'mount a shared one'),
    ('tpu_vm', [*RUN, 'a b'], "The pipeline does not take 'a b'"),
    ('tpu_vm', [*RESUME[:-1], '--', *PIPELINE], '--nfs is missing'),
    (
      'tpu_vm',
      [*RESUME, '--', PIPELINE[0], '--workdir=/tmp/x'],
      'would be lost with the workers: put it below /mnt/gr2',
    ),
    ('xpk', ['delete', '--name=b-1'], '--cluster is missing'),
    ('xpk', ['create', *XPK, '--type=v6e-8', '--slices=0'], '--slices=0 does'),
    ('slurm', ['submit'], '--gpus is missing'),
    ('slurm', [*SUBMIT, '--per=core'], '--per=core does not match gpu|node'),
    ('slurm', [*SUBMIT, '--time=soon'], '--time=soon does not match'),
    ('slurm', ['delete', '--job=all'], '--job=all does not match'),
  ],
)  # fmt: skip
def test_bad_arguments_are_errors_before_anything_runs(
  script, arguments, message, fakes
):
  found = _run(script, *arguments, fakes=fakes)
  assert found.returncode == 2
  assert message in found.stderr
  assert found.stderr.startswith(f'{script}.sh: ')
  assert not (fakes / 'calls').exists()


@pytest.mark.parametrize(
  ('script', 'arguments', 'program'),
  [
    ('tpu_vm', COMMANDS['delete'][1], 'gcloud'),
    ('xpk', COMMANDS['end'][1], 'xpk'),
    ('slurm', COMMANDS['cancel'][1], 'scancel'),
  ],
)
def test_a_missing_program_is_named(script, arguments, program, tmp_path):
  for tool in ('bash', 'basename', 'dirname'):
    (tmp_path / tool).symlink_to(shutil.which(tool))
  found = _run(script, *arguments, path=str(tmp_path))
  assert found.returncode == 2
  assert f'{program} is not on PATH: install it' in found.stderr


@pytest.mark.parametrize('script', ['tpu_vm', 'xpk', 'slurm'])
def test_every_command_has_help(script):
  whole = _run(script).stdout
  listed = [
    line.split()[0] for line in whole.splitlines() if line.startswith('  ')
    and line.strip() and line[2] != ' ' and '  ' in line.strip()
  ]  # fmt: skip
  assert len(listed) >= 3
  for command in listed:
    found = _run(script, command, '--help')
    assert found.returncode == 0
    assert found.stdout.startswith(f'bash launch/{script}.sh {command}')
