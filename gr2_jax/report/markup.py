"""The frame of a page, its tables, and a config on it."""

import html
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = (pathlib.Path(__file__).parent / 'page.css').read_text()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Makes a table of escaped cells, as HTML.

  Args:
    head: its first line.
    rows: the others.

  Returns:
    The table.
  """
  top = ''.join(f'<th>{html.escape(cell)}</th>' for cell in head)
  body = ''.join(
    '<tr>' + ''.join(f'<td>{html.escape(c)}</td>' for c in row) + '</tr>'
    for row in rows
  )
  return (
    f'<div class="wide"><table><thead><tr>{top}</tr></thead>'
    f'<tbody>{body}</tbody></table></div>'
  )


def configuration(config: Mapping[str, Any]) -> str:
  """Returns a config as a folded section of a page."""
  text = json.dumps(config, indent=2, sort_keys=True)
  return (
    '<details><summary>Configuration</summary>'
    f'<pre>{html.escape(text)}</pre></details>'
  )


def frame(title: str, below: str, body: str) -> str:
  """Makes a document of its parts.

  Args:
    title: heading; text, escaped here.
    below: HTML below the heading.
    body: HTML.

  Returns:
    The HTML document.
  """
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<link rel="icon" href="data:,">'
    f'<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>'
    f'<header><h1>{html.escape(title)}</h1>{below}</header><main>{body}'
    '</main></body></html>\n'
  )
