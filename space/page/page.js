// Ctrl+Enter runs the code, wherever the cursor is in the editor. In the capture phase: the editor would add a line.
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
  if (!event.target.closest || !event.target.closest('#code')) return;
  event.preventDefault();
  event.stopPropagation();
  document.getElementById('run')?.click();
}, true);

// A wide table or a picture at full size is closed by a click; the browser itself closes it with Escape.
document.addEventListener('click', (event) => {
  const full = event.target.closest && event.target.closest('.ci-full');
  if (full) full.hidePopover();
});

// What happened when the connection broke, and what has become of the code.
(() => {
  const ask = 15000, again = 3000;
  let lost = false, timer = 0;
  const say = (text) => {
    let banner = document.getElementById('connection');
    if (!banner) {
      banner = document.createElement('div');
      banner.id = 'connection';
      banner.setAttribute('role', 'alert');
      document.body.prepend(banner);
    }
    banner.textContent = text;
    banner.hidden = !text;
  };
  const look = async () => {
    clearTimeout(timer);
    if (!document.hidden) {
      let well = false;
      try {
        well = (await fetch('/healthz', { cache: 'no-store', signal: AbortSignal.timeout(8000) })).ok;
      } catch { /* no connection: said below */ }
      if (!well) {
        say('The connection to the server is broken: it sleeps, restarts, or the network is down. '
          + 'Code that runs goes on without this page, up to its time limit. Trying again …');
      } else if (lost) {
        say('The connection is back. Reload the page to see what ran meanwhile; '
          + 'if the server was restarted, its sessions are gone.');
      }
      lost = lost || !well;
      timer = setTimeout(look, well ? ask : again);
    }
  };
  document.addEventListener('visibilitychange', look);
  addEventListener('online', look);
  addEventListener('offline', look);
  timer = setTimeout(look, ask);
})();
