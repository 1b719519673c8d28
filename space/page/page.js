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

// Gradio's client hears of all its events on one stream, which the server ends when nothing is under way. An event that
// is taken in just then, before the word of that end is through, would be waited for on a stream that is no more: Run
// and Stop would do nothing from then on. So that word is kept back while an event is awaited, and the next stream goes
// on in this one's place.
(() => {
  const fetched = window.fetch;
  const awaited = new Set(), early = new Set();
  let heard = null; // the client has taken in the newest word of an end
  const taken = (id) => { if (id && !early.delete(id)) awaited.add(id); };
  const completed = (id) => { if (!awaited.delete(id)) early.add(id); };

  // passes events on; true where the server ended the stream although one is awaited
  const pass = async (answer, out) => {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) {
        awaited.clear(); // the server is gone, and with it what was awaited
        return false;
      }
      const events = (rest + value).split('\n\n');
      rest = events.pop();
      for (const event of events) {
        const kind = /^data: ?\{"msg": ?"(process_completed|close_stream)"/.exec(event)?.[1];
        if (kind === 'process_completed') completed(JSON.parse(event.slice(5)).event_id);
        if (kind === 'close_stream' && awaited.size) return true;
        out.enqueue(new TextEncoder().encode(`${event}\n\n`));
        if (kind === 'close_stream') {
          heard = new Promise((done) => setTimeout(done));
          return false;
        }
      }
    }
  };

  const streamed = (first, next) => new Response(new ReadableStream({
    async start(out) {
      try {
        let answer = first;
        while (await pass(answer, out)) {
          answer = await next();
          if (!answer.ok) throw new Error(`The stream of events could not be opened again (${answer.status}).`);
        }
        out.close();
      } catch (error) {
        awaited.clear(); // of a connection that broke nothing more comes
        out.error(error);
      }
    },
  }), { status: first.status, headers: first.headers });

  window.fetch = async (input, options) => {
    const path = new URL(input.url ?? input, location.href).pathname;
    const ask = () => fetched(input, options);
    const answer = await ask();
    if (!answer.ok) return answer;
    if (path.endsWith('/queue/join')) {
      taken((await answer.clone().json()).event_id);
      await heard;
    }
    return path.endsWith('/queue/data') ? streamed(answer, ask) : answer;
  };
})();

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
