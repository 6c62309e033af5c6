"""Settings of teachers that are language models.

Those of the rules and of a local model stand beside them.
"""

import dataclasses

# What of a server's answers is asked for as JSON by schema.
AUTO, SCHEMA, NONE = 'auto', 'schema', 'none'


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
  """How a server is asked; what is asked stands elsewhere.

  Attributes:
    url: its address, such as 'http://127.0.0.1:8000/v1'.
    concurrency: requests at a time.
    timeout: seconds that a whole answer may take, waiting in the server's queue
      included.
    retries: how often a failed request is sent again.
    backoff: seconds before the first of these; doubled each time.
    max_requests: budget, retries included; 0 for none.
    max_tokens: budget of prompts and answers together; 0 for none.
    structured: AUTO asks for JSON by schema, and without it where the server
      refuses that; SCHEMA insists; NONE does not ask.
    replies_as: another name of the model, by which the server answers.
    insist: continue though the first answers of a language model, a local
      one included, are all rejected in one way (`--insist`).
  """

  url: str = ''
  concurrency: int = 8
  timeout: float = 120.0
  retries: int = 5
  backoff: float = 1.0
  max_requests: int = 0
  max_tokens: int = 0
  structured: str = AUTO
  replies_as: str = ''
  insist: bool = False

  def __post_init__(self):
    """Checks the values."""
    least = {'concurrency': 1, 'retries': 0, 'backoff': 0}
    least |= {'max_requests': 0, 'max_tokens': 0}
    for name, bound in least.items():
      if getattr(self, name) < bound:
        raise ValueError(
          f'endpoint.{name} is {getattr(self, name)}; give {bound} or more.'
        )
    if not self.timeout > 0:
      raise ValueError(
        f'endpoint.timeout is {self.timeout}; give seconds above 0.'
      )
    if self.structured not in (AUTO, SCHEMA, NONE):
      raise ValueError(
        f'endpoint.structured is {self.structured!r}; use {AUTO!r}, '
        f'{SCHEMA!r} or {NONE!r}.'
      )


@dataclasses.dataclass(frozen=True)
class MessageConfig:
  """What messages show; the defaults are our choice.

  Attributes:
    version: folder of the templates.
    priming: whether hints on sequential and complementary buying are given [P].
    history_items: at most this many of the last items; 0 for as many as the
      run's own prompts show.
    tokens_a_word: what a word takes of the run's own vocabulary: 1.5 of a
      pretrained one, more of a small one; 0 measures it.
    title_characters: a longer title is cut.
    category_characters: a longer category path loses its root first.
  """

  version: str = 'v1'
  priming: bool = True
  history_items: int = 0
  tokens_a_word: float = 0.0
  title_characters: int = 160
  category_characters: int = 120

  def __post_init__(self):
    for name in ('title_characters', 'category_characters'):
      if getattr(self, name) < 1:
        raise ValueError(
          f'traces.prompt.{name} is {getattr(self, name)}; give 1 or more.'
        )
    for name in ('history_items', 'tokens_a_word'):
      value = getattr(self, name)
      if value < 0 or 0 < value < 1:
        raise ValueError(
          f'traces.prompt.{name} is {value}; give 1 or more, or 0, for which '
          'the run itself is asked.'
        )


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
  """How a language model samples; the defaults are our choice.

  Attributes:
    temperature: of the first attempt.
    temperature_step: what each further attempt adds.
    top_temperature: where it stops rising.
    top_p: the most probable tokens stay that together reach it; 1: all.
    max_tokens: of an answer, in the model's own tokens; ten semantic IDs take
      400 of a tokenizer that does not know them.
  """

  temperature: float = 0.7
  temperature_step: float = 0.1
  top_temperature: float = 1.2
  top_p: float = 0.95
  max_tokens: int = 1024

  def __post_init__(self):
    for name in ('temperature', 'temperature_step'):
      if getattr(self, name) < 0:
        raise ValueError(
          f'traces.sampling.{name} is {getattr(self, name)}; give 0 or more.'
        )
    if self.top_temperature < self.temperature:
      raise ValueError(
        f'traces.sampling.top_temperature is {self.top_temperature}, below '
        f'the temperature {self.temperature} of the first attempt: raise it.'
      )
    if not 0 < self.top_p <= 1:
      raise ValueError(
        f'traces.sampling.top_p is {self.top_p}; give a probability in (0, 1].'
      )
    if self.max_tokens < 1:
      raise ValueError(
        f'traces.sampling.max_tokens is {self.max_tokens}; give 1 or more.'
      )

  def at(self, attempt: int) -> float:
    """Returns the temperature of an attempt, 0 for the first one."""
    raised = self.temperature + attempt * self.temperature_step
    return round(min(raised, self.top_temperature), 6)
