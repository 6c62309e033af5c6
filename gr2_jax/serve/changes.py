"""Changes of what is served: another run, more items."""

import pathlib
from typing import Any

from absl import logging

from gr2_jax.data import generic, raw
from gr2_jax.serve import requests
from gr2_jax.serve import service as service_lib


async def reload(service: service_lib.Service, workdir: pathlib.Path) -> dict:
  """Takes a new run, while the old one still answers.

  Items that came by `add` get semantic IDs of the new run.

  Args:
    service: the server.
    workdir: of the run.

  Returns:
    `model` and `previous`, their names.

  Raises:
    requests.Refused: the run cannot be read, or another change is in progress.
  """

  def make() -> Any:
    made = service.load(workdir)
    news = [x for x in service.engine.added if not made.knows(x.item_id)]
    if news:
      made, _ = made.grow(news)
    made.warm_up()
    return made

  before = service.engine.name
  await service.change(make)
  logging.info('%s takes the place of %s.', service.engine.name, before)
  return {'model': service.engine.name, 'previous': before}


async def add(service: service_lib.Service, given: Any) -> dict:
  """Adds items to the catalogue.

  Args:
    service: the server.
    given: objects as in `items.jsonl`.

  Returns:
    `items`, each `item_id` with `sid`, its codes, and `catalogue`, how many
    items there are now.

  Raises:
    requests.Refused: no such items, or ones that are there already.
  """
  most = service.settings.limits.items
  if not isinstance(given, list) or not 0 < len(given) <= most:
    raise requests.refuse(f"'items' must be a list of 1 to {most} objects.")
  try:
    found = raw.unique_items(
      (f'items[{i}]', generic.item(row, f'items[{i}]'))
      for i, row in enumerate(given)
    )
  except ValueError as error:
    raise requests.refuse(str(error)) from None
  sids = []

  def make() -> Any:
    there = [name for name in found if service.engine.knows(name)]
    if there:
      raise ValueError(
        f'{len(there)} items are in the catalogue already: {there[:20]}. '
        'Leave them out; their semantic IDs stay.'
      )
    made, new = service.engine.grow(list(found.values()))
    sids.extend(new.tolist())
    return made

  await service.change(make)
  pairs = zip(found, sids, strict=True)
  return {
    'items': [{'item_id': name, 'sid': sid} for name, sid in pairs],
    'catalogue': len(service.engine.items),
  }
