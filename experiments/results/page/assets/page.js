// The page reads without this script; it adds sorting, filtering, tooltips and the choice of a theme.
'use strict';

(() => {
  const root = document.documentElement;

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
    const show = () => {
      button.setAttribute('aria-pressed', dark());
    };
    button.hidden = false;
    button.addEventListener('click', () => {
      root.dataset.theme = dark() ? 'light' : 'dark';
      remembered.set('vision-backbones-theme', root.dataset.theme);
      show();
    });
    system.addEventListener('change', show);
    show();
  }

  document.addEventListener('DOMContentLoaded', () => {
    themes();
  });
})();
