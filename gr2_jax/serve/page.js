'use strict';
// All that comes from the server is put in as text, never as HTML.
const at = (id) => document.getElementById(id);
const ids = (id) => at(id).value.split(',').map((x) => x.trim()).filter(Boolean);

async function ask(path, body) {
  const headers = {'Content-Type': 'application/json'};
  if (at('token').value) headers.Authorization = `Bearer ${at('token').value}`;
  const method = body === undefined ? 'GET' : 'POST';
  const response = await fetch(path, {method, headers, body});
  const found = await response.json();
  if (!response.ok) throw new Error(found.error.message);
  return found;
}

function add(parent, name, text, kind = '') {
  const made = parent.appendChild(document.createElement(name));
  made.textContent = text;
  made.className = kind;
  return made;
}

function row(result, place) {
  const moved = result.index - place;
  const score = result.relevance_score;
  const made = document.createElement('tr');
  add(made, 'td', result.index + 1);
  const after = add(made, 'td', place + 1);
  if (moved > 0) add(after, 'span', ' ▲', 'up');
  if (moved < 0) add(after, 'span', ' ▼', 'down');
  const item = add(made, 'td', '', 'item');
  if (result.document.text) add(item, 'span', result.document.text, 'title');
  add(item, 'span', result.item_id, 'id');
  add(made, 'td', score === null ? '–' : score.toFixed(3));
  return made;
}

async function rank(event) {
  event.preventDefault();
  at('problem').textContent = '';
  at('send').disabled = true;
  try {
    const found = await ask('/v1/rerank', JSON.stringify({
      history: ids('history'), candidates: ids('candidates'),
      explain: at('explain').checked, return_documents: true,
    }));
    at('rows').replaceChildren(...found.results.map(row));
    at('explanation').textContent = found.explanation;
    at('timings').textContent = `${found.timings.total_ms.toFixed(1)} ms` +
      (found.valid ? '' : '; no valid answer: the incoming order');
    at('result').hidden = false;
  } catch (error) {
    at('result').hidden = true;
    at('problem').textContent = error.message;
  } finally {
    at('send').disabled = false;
  }
}

async function begin() {
  at('form').addEventListener('submit', rank);
  try {
    const [model] = (await ask('/v1/models')).data;
    at('model').textContent = `${model.id}, ${model.catalogue} items`;
    at('explain').disabled = !model.explains;
    at('history').value = model.example.history.join(', ');
    at('candidates').value = model.example.candidates.join(', ');
  } catch (error) {
    at('model').textContent = error.message;
  }
}
begin();
