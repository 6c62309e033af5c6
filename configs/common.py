"""What the configs share: typed switches after the colon, and the base."""

import ml_collections


def parse_switches(arg: str, **defaults) -> ml_collections.ConfigDict:
  """Parses what stands after the colon of `--config=file.py:a=1,b`.

  Args:
    arg: comma-separated `name=value` or `name` (true).
    **defaults: every switch the config knows, with its default; a value is
      read as the type of its default.

  Returns:
    A ConfigDict of all switches.

  Raises:
    ValueError: an unknown switch or a value of another type, by name.
  """
  switches = ml_collections.ConfigDict(defaults)
  for part in filter(None, arg.split(',')):
    name, _, text = part.partition('=')
    if name not in defaults:
      raise ValueError(
        f'Unknown switch {name!r} after the colon; known: {sorted(defaults)}.'
      )
    default = defaults[name]
    try:
      if isinstance(default, bool):
        value = {'': True, 'true': True, '1': True, 'false': False, '0': False}[
          text.lower()
        ]
      else:
        value = type(default)(text)
    except (KeyError, ValueError) as error:
      raise ValueError(
        f'Switch {name}={text!r} is not a {type(default).__name__}.'
      ) from error
    switches[name] = value
  return switches


def base() -> ml_collections.ConfigDict:
  """Returns every setting of the road; a config changes what it must.

  Settings that are absent here keep the defaults of their dataclass, whose
  docstring says where each default comes from. The sizes are for a decoder of
  about two million parameters that is trained from scratch on a CPU.
  """
  config = ml_collections.ConfigDict(
    {
      'seed': 0,
      # -1: what the others leave; fsdp or tensor 0: all three are chosen.
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'data': {
        'name': '',
        'kind': 'generic',
        'dir': '',
        'core': 5,
        'split': {
          'kind': 'leave_one_out',
          'n_test': 1,
          'n_valid': 1,
          'n_train': 1,
        },
      },
      'sid': _sid(),
      'text': {
        'pieces': 3000,
        'prompt': {
          'history_items': 6,
          'max_candidates': 10,
          'max_tokens': 288,
          'retrieval_items': 20,
        },
      },
      'lm': _lm(),
      'midtrain': _midtrain(),
      'candidates': _candidates(),
      'traces': _traces(),
      'endpoint': _endpoint(),
      'sft': _sft(),
      'rl': _rl(),
      # 'list': token by token, the paper's way.
      'answer': {'ranking': 'likelihood'},
      'direct': {'steps': 0, 'max_new_tokens': 60},
      'evaluate': {'max_lists': 0, 'examples': 10},
      'tracking': {'tensorboard': True, 'wandb': '', 'profile': ''},
    }
  )
  # What a teacher may write is what the model may write.
  config.traces.explanation_tokens = config.rl.get_ref('explanation_tokens')
  config.direct.lr = config.rl.get_ref('lr')
  return config


def _endpoint() -> dict:
  # How a server is asked, not what: no stage is done anew where it changes.
  return {
    'url': '',
    'concurrency': 8,
    'timeout': 120.0,
    'retries': 5,
    'backoff': 1.0,
    'max_requests': 0,
    'max_tokens': 0,
    'structured': 'auto',
    'replies_as': '',
  }


def _sid() -> dict:
  return {
    'levels': 4,
    'codes': 256,
    'embeddings': '',
    'bf16_matmul': True,
    'epochs': 120,
    'quantiser': 'rqvae',
    'init': 'kmeans++',
    'ema': True,
    'diversity': 0.0,
    'dead_reset': 0,
    'split_below': 0.25,
    'last_level': 'random',
    'contrastive': 0.0,
  }


def _lm() -> dict:
  return {
    'width': 160,
    'layers': 4,
    'heads': 4,
    'kv_heads': 2,
    'head_dim': 40,
    'mlp_dim': 480,
    'attention': 'plain',
    'bf16_matmul': True,
    'scan': False,
    'remat': False,
  }


def _midtrain() -> dict:
  return {
    'weights': {
      'next_item': 0.66,
      'persona': 0.14,
      'item_text': 0.15,
      'general_text': 0.05,
    },
    'new_rows': {
      'steps': 0,
      'batch_size': 8,
      'length': 256,
      'lr': 1e-3,
      'schedule': 'constant',
    },
    'all': {
      'steps': 1500,
      'batch_size': 8,
      'length': 256,
      'lr': 3e-3,
      'dropout': 0.0,
      'ckpt_every': 250,
      'shards': 0,
      'workers': 0,
    },
    'tasks': {'stride': 5, 'persona_items': 6},
  }


def _candidates() -> dict:
  return {
    'source': 'lm',
    'k': 10,
    'width': 20,
    'chunk': 4096,
    'exclude_seen': True,
    'folds': 0,
    'fold_positions': 0,
    'fold_steps': 1.0,
    'fold_use': 'head',
    'sft_share': 0.5,
  }


def _traces() -> dict:
  return {
    'teacher': 'rules',
    'model': '',
    'mode': 'rejection',
    'attempts': 8,
    'lists': 0,
    'near_duplicate': 0.0,
    'prompt': {'version': 'v1', 'priming': True, 'history_items': 0},
    'sampling': {
      'temperature': 0.7,
      'temperature_step': 0.1,
      'top_temperature': 1.2,
      'top_p': 0.95,
      'max_tokens': 1024,
    },
    'rules': {'noise': 0.2},
    'local': {'batch_size': 8, 'bucket': 256, 'param_dtype': 'bfloat16'},
  }


def _sft() -> dict:
  return {
    'train': {
      'steps': 400,
      'batch_size': 2,
      'length': 576,
      'lr': 3e-4,
      'dropout': 0.1,
      'ckpt_every': 50,
    },
    'weights': {'next_item': 0.5, 'answer': 0.5},
    'replay': 0.02,
    'lists': 16,
    'explained': 12,
    'shuffled': 0.5,
    'lambda_r': 0.1,
    'lambda_o': 1.0,
  }


def _rl() -> dict:
  return {
    'lists': 'unseen',
    'steps': 8,
    'lr': 6e-5,
    # Of answers that are written token by token.
    'prompts_per_step': 64,
    # Of rankings, which cost one pass a list.
    'lists_per_step': 512,
    'rankings': 256,
    'explained_per_step': 32,
    'group_size': 8,
    'max_new_tokens': 96,
    'explanation_tokens': 32,
    'overlong_buffer': 0,
    'constrain': True,
    'reward': 'promotion',
    'conditional': True,
    # Each swap of two equally likely neighbours earns alpha times the chance
    # that one of them is true: a weak ranker is paid 0.2 for shuffling.
    'alpha': 0.02,
    'invalid': -1.0,
    'eps_low': 0.2,
    'eps_high': 0.28,
    'temperature': 1.0,
    'advantage_norm': 'std',
    'credit': 'causal',
    # So many that the policy moves away from the one that drew: the clip acts.
    'updates_per_rollout': 16,
    'max_rounds': 2,
    'over_sampling': 1.0,
    'max_staleness': 1,
    'dynamic_sampling': True,
    'old_logps': 'sampler',
    'tis_cap': 0.0,
    'loss_level': 'token',
    'reward_weight': 1.0,
    'reference': '',
    'kl': 0.0,
    'entropy_bonus': 0.0,
    'start': 'sft',
    'valid_lists': 0,
    'checkpoint_every': 1,
  }


def choose_teacher(config: ml_collections.ConfigDict, teacher: str) -> None:
  """Says who writes a config's traces.

  The three steps of a language model take more words than those of the rules:
  about 130 tokens [N].

  Args:
    config: of a run, changed here.
    teacher: 'rules', 'endpoint' or 'local'.

  Raises:
    ValueError: another teacher.
  """
  if teacher not in ('rules', 'endpoint', 'local'):
    raise ValueError(
      f'Switch teacher={teacher!r}: choose rules, endpoint or local.'
    )
  if teacher == 'rules':
    return
  config.traces.teacher = teacher
  config.rl.explanation_tokens = 128
  config.rl.max_new_tokens = 192
  config.sft.train.length += 128
