// The page reads without this script; it adds sorting, filtering, tooltips and the choice of a theme.
'use strict';

(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  // Storage may be refused, as for files in some browsers: then the choice lasts as long as the page is open.
  const remembered = {
    get(key) {
      try { return localStorage.getItem(key); } catch { return null; }
    },
    set(key, value) {
      try { localStorage.setItem(key, value); } catch { /* not remembered */ }
    },
  };

  // Before the first paint, so that the page does not flash in the other theme.
  const theme = remembered.get('vision-backbones-theme');
  if (theme === 'dark' || theme === 'light') root.dataset.theme = theme;

  function themes() {
    const button = document.getElementById('theme');
    const system = matchMedia('(prefers-color-scheme: dark)');
    const dark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : system.matches);
    // The name of what it does, not of what there is.
    const show = () => { button.textContent = dark() ? 'Light' : 'Dark'; };
    button.hidden = false;
    button.addEventListener('click', () => {
      root.dataset.theme = dark() ? 'light' : 'dark';
      remembered.set('vision-backbones-theme', root.dataset.theme);
      show();
    });
    system.addEventListener('change', show);
    show();
  }

  // A button in each heading sorts by its column; empty values come last in both directions.
  function sorting(table) {
    const body = table.tBodies[0];
    const first = [...body.rows];
    const headings = [...table.tHead.rows[0].cells];
    const key = (row, column, number) => {
      const cell = row.cells[column];
      if (!number) return cell.textContent;
      return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    };
    const sort = (column, direction) => {
      const number = headings[column].dataset.sort === 'number';
      const sign = direction === 'ascending' ? 1 : -1;
      const keyed = [...body.rows].map((row) => [key(row, column, number), row]);
      keyed.sort(([one], [other]) => {
        if (one === null || other === null) return (one === null) - (other === null);
        return sign * (number ? one - other : one.localeCompare(other, undefined, { numeric: true }));
      });
      body.append(...keyed.map(([, row]) => row));
      headings.forEach((heading, index) => {
        heading.setAttribute('aria-sort', index === column ? direction : 'none');
      });
    };
    headings.forEach((heading, column) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.append(...heading.childNodes);
      heading.append(button);
      heading.setAttribute('aria-sort', 'none');
      button.addEventListener('click', () => {
        // The larger the better for most numbers, so they begin with the largest; the third time is the first order.
        const order = heading.dataset.sort === 'number' ? ['descending', 'ascending'] : ['ascending', 'descending'];
        const now = order.indexOf(heading.getAttribute('aria-sort'));
        if (now < 1) sort(column, order[now + 1]);
        else {
          heading.setAttribute('aria-sort', 'none');
          body.append(...first);
        }
      });
    });
    return () => {
      headings.forEach((heading) => heading.setAttribute('aria-sort', 'none'));
      body.append(...first);
    };
  }

  function filtering(table, form, unsort) {
    const rows = [...table.tBodies[0].rows];
    const whole = (cell) => (cell.querySelector('bdi[title]')?.title ?? cell.textContent);
    // With what a shortened name leaves out.
    const texts = rows.map((row) => [row.textContent, ...[...row.cells].map(whole)].join(' ').toLowerCase());
    const selects = all('select', form);
    const search = document.getElementById('search');
    const output = document.getElementById('shown');
    const links = new Map();
    all('svg a[href^="#line-"]').forEach((link) => {
      const id = link.getAttribute('href').slice(1);
      links.set(id, [...(links.get(id) ?? []), link]);
    });
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, index) => {
        const keep = words.every((word) => texts[index].includes(word))
          && selects.every((each) => !each.value || whole(row.cells[each.dataset.column]) === each.value);
        row.hidden = !keep;
        shown += keep;
        links.get(row.id)?.forEach((link) => link.classList.toggle('dim', !keep));
      });
      const lines = rows.length === 1 ? 'line' : 'lines';
      output.value = shown === rows.length ? `${shown} ${lines}` : `${shown} of ${rows.length} ${lines}`;
    };
    const choose = (box) => {
      all('tr', table).forEach((row) => row.cells[box.dataset.column].classList.toggle('off', !box.checked));
    };
    form.hidden = false;
    form.addEventListener('submit', (event) => event.preventDefault());
    form.addEventListener('input', (event) => (event.target.type === 'checkbox' ? choose(event.target) : filter()));
    form.addEventListener('reset', () => setTimeout(() => {
      unsort();
      filter();
      all('input[type="checkbox"]', form).forEach(choose);
    }));
  }

  // A menu that would leave the window is moved to the left.
  function menus() {
    all('.chooser').forEach((menu) => menu.addEventListener('toggle', () => {
      const box = menu.querySelector('div');
      box.style.left = '0';
      const beyond = box.getBoundingClientRect().right + 16 - root.clientWidth;
      if (beyond > 0) box.style.left = `${-beyond}px`;
    }));
  }

  // A button copies each text that is a command; where the clipboard is refused, the text is selected instead.
  function copying() {
    all('pre.command').forEach((text) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.className = 'copy';
      button.textContent = 'Copy';
      button.addEventListener('click', async () => {
        try {
          await navigator.clipboard.writeText(text.textContent);
          button.textContent = 'Copied';
        } catch {
          getSelection().selectAllChildren(text);
          button.textContent = 'Selected';
        }
        setTimeout(() => { button.textContent = 'Copy'; }, 2000);
      });
      text.before(button);
    });
  }

  // The titles of marks become tooltips that also appear on focus and on touch.
  function tooltips() {
    const tip = document.getElementById('tip');
    const titled = 'svg [data-tip], .edge[title]';
    all('svg').forEach((drawing) => {
      all('title', drawing).forEach((title) => {
        const mark = title.parentNode;
        if (mark !== drawing) mark.dataset.tip = title.textContent;
        title.remove();
      });
      all('a', drawing).forEach((link) => link.setAttribute('aria-label', link.querySelector('[data-tip]')?.dataset.tip ?? ''));
    });
    const show = (target) => {
      const mark = target.closest?.('[data-tip]') ?? target.querySelector?.('[data-tip]');
      tip.hidden = !mark;
      if (!mark) return;
      tip.textContent = mark.dataset.tip;
      const place = mark.getBoundingClientRect();
      const size = tip.getBoundingClientRect();
      const left = place.left + place.width / 2 - size.width / 2;
      tip.style.left = `${Math.max(4, Math.min(left, root.clientWidth - size.width - 4))}px`;
      const above = place.top - size.height - 8;
      tip.style.top = `${above > 4 ? above : place.bottom + 8}px`;
    };
    const hide = () => { tip.hidden = true; };
    all('svg').forEach((drawing) => {
      drawing.addEventListener('pointerover', (event) => show(event.target));
      drawing.addEventListener('pointerleave', hide);
      drawing.addEventListener('focusin', (event) => show(event.target));
      drawing.addEventListener('focusout', hide);
    });
    addEventListener('scroll', hide, { passive: true });
    addEventListener('keydown', (event) => { if (event.key === 'Escape') hide(); });
  }

  // Of the marks of a drawing only one is in the order of Tab; arrow keys go to the others, from left to right.
  function arrows() {
    all('svg[role="group"]').forEach((drawing) => {
      const links = all('a', drawing);
      const places = new Map(links.map((link) => [link, Number(link.dataset.order)]));
      links.sort((one, other) => places.get(one) - places.get(other));
      links.forEach((link, index) => link.setAttribute('tabindex', index ? -1 : 0));
      drawing.addEventListener('keydown', (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const now = links.indexOf(event.target);
        if (!step || now < 0) return;
        event.preventDefault();
        const next = links[(now + step + links.length) % links.length];
        links[now].setAttribute('tabindex', -1);
        next.setAttribute('tabindex', 0);
        next.focus();
      });
    });
  }

  // A line that a mark leads to must be visible, whatever the filters are.
  function revealing(form) {
    addEventListener('hashchange', () => {
      const row = document.getElementById(location.hash.slice(1));
      if (row?.hidden) form.reset();
    });
  }

  document.addEventListener('DOMContentLoaded', () => {
    themes();
    const table = document.getElementById('lines');
    const form = document.getElementById('controls');
    if (table && form) {
      filtering(table, form, sorting(table));
      revealing(form);
    }
    menus();
    copying();
    tooltips();
    arrows();
  });
})();
