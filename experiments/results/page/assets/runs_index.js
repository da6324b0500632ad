// Filters and sorts the lines of the runs index.
'use strict';

document.addEventListener('DOMContentLoaded', () => {
  const body = document.querySelector('.runs tbody');
  if (!body) return;
  const rows = [...body.rows];
  const controls = document.querySelector('.controls');
  const filters = [...controls.querySelectorAll('[data-filter]')];
  const output = controls.querySelector('output');
  controls.hidden = false;

  function filter() {
    const wanted = filters.map((each) => [each.dataset.filter, each.value.trim().toLowerCase()]);
    let shown = 0;
    for (const row of rows) {
      // Every word of the search must occur.
      row.hidden = !wanted.every(([key, value]) => (key === 'text'
        ? value.split(/\s+/).every((word) => row.dataset.text.includes(word))
        : !value || row.dataset[key].toLowerCase() === value));
      shown += !row.hidden;
    }
    output.textContent = shown === rows.length ? '' : `${shown} of ${rows.length} shown`;
  }
  for (const each of filters) each.addEventListener('input', filter);

  const buttons = [...document.querySelectorAll('.runs .sort')];
  const isText = (key) => key === 'name' || key === 'text';
  for (const button of buttons) {
    button.addEventListener('click', () => {
      const key = button.dataset.sort;
      const before = button.closest('th').getAttribute('aria-sort');
      const up = before ? before === 'descending' : isText(key);
      for (const other of buttons) other.closest('th').removeAttribute('aria-sort');
      button.closest('th').setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const sign = up ? 1 : -1;
      const value = (row) => row.dataset[key];
      rows.sort((one, other) => {
        const [a, b] = [value(one), value(other)];
        if (!a !== !b) return a ? -1 : 1; // what has no value comes last either way
        return sign * (isText(key) ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
      });
      body.append(...rows);
    });
  }
  filter();
});
