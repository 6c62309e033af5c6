"""What a fake server answers to the real prompts: sound rankings by chance."""

import json
import random
import re

_LINE = re.compile(r'^- (<\|sid_begin\|>[^|]*<\|sid_end\|>)', re.MULTILINE)


def write(messages, seed):
  """Shuffles the candidates of a prompt; every fifth answer is no JSON."""
  prompt = messages[-1]['content']
  history, candidates = prompt.split(' candidates, in the order', 1)
  rng = random.Random(f'{prompt} {seed}')
  ranking = _LINE.findall(candidates)
  rng.shuffle(ranking)
  if rng.random() < 0.2:
    return 'I would rather not.'
  words = rng.choice(['It follows', 'It goes with', 'It completes'])
  cited = _LINE.findall(history)[-1]
  text = f'{words} {cited}, number {rng.randrange(1000)}: {ranking[0]}'
  return json.dumps({'explanation': text, 'recommendations': ranking})
