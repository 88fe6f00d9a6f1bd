/* realtime.js: the client of the PHP extension "realtime". No dependencies. MIT licence. Types: realtime.d.ts
 *   const rt = new Realtime('/');
 *   const off = rt.subscribe('orders', (data, message) => …);
 *   const reply = await rt.publish('chat', { text: 'hello' });
 * WebSocket, else Server-Sent Events, else long polling. Comes back by itself and resumes after the newest id it has. */
const fault = (code, text = code, channel) => Object.assign(new Error(text), { code, channel });
/** A frame's data; what PHP sent as binary becomes a Uint8Array. */
const content = ({ data = null, encoding }) => (encoding ? Uint8Array.from(atob(data), (c) => c.charCodeAt(0)) : data);
/** By how much id `a` is newer than `b`; NaN where they do not compare (a publisher's own ids, another server's). */
const age = (a, b) => {
  const [[, era, n], [, other, m]] = [a, b].map((id) => /^([\da-f]{8})-(\d+)$/.exec(id) ?? []);
  return era === other ? n - m : NaN;
};
const placed = (id) => age(id, id) === 0;

export class Realtime {
  #subs = new Map(); // channel -> { handlers, cursor: resume after it, last: delivered, live: newest when subscribed, … }
  #listeners = {};
  #waiting = new Set(); // publications until there is a connection
  #link; // the connection, open or opening
  #probe; // a better one, tried meanwhile
  #index = 0; // of the transport in use
  #proven = new Set(); // transports that have worked
  #fails = 0; // for the back-off
  #tries = 0; // to open this transport
  #turn = 0; // which better transport is tried next
  #newest; // id on this connection
  #refs = 0;
  #timers = {};
  // A laptop that slept finds out when it wakes, not at the next timer.
  #wake = () => !this.#link ? this.#retry(0) : Date.now() > this.#link.due && this.#link.late();
  #online = () => (this.#link ? (this.#link.check ?? this.#link.late)() : this.#retry(0));

  constructor(base = '/', options) {
    this.options = options = {
      transports: ['ws', 'sse', 'poll'], params: {}, credentials: 'same-origin', timeout: 8000, minDelay: 500,
      maxDelay: 30000, upgrade: 60000, WebSocket: globalThis.WebSocket, fetch: (...args) => fetch(...args), ...options,
    };
    this.base = new URL(base.replace(/\/?$/, '/'), globalThis.location?.href);
    this.kinds = options.transports.filter((kind) => kind !== 'ws' || options.WebSocket);
    this.state = 'connecting';
    globalThis.addEventListener?.('online', this.#online);
    globalThis.document?.addEventListener('visibilitychange', this.#wake);
    this.#retry(0);
  }

  get transport() { return this.state === 'open' ? this.#link.kind : null; }
  get connection() { return this.state === 'open' ? this.#link.id : null; }

  subscribe(channel, handler, { since } = {}) {
    let sub = this.#subs.get(channel);
    if (!sub) {
      sub = { handlers: new Set(), seen: new Set(), cursor: since, last: since };
      sub.ready = new Promise((done, fail) => Object.assign(sub, { done, fail }));
      sub.ready.catch(() => {}); // who does not ask hears of it by "error"
      this.#subs.set(channel, sub);
      this.#changed();
    }
    const entry = (...args) => handler(...args); // the same function may come twice
    sub.handlers.add(entry);
    return Object.assign(() => {
      sub.handlers.delete(entry);
      if (!sub.handlers.size && this.#subs.get(channel) === sub) this.#subs.delete(channel), this.#changed();
    }, { ready: sub.ready });
  }

  publish(channel, data, { event, timeout = 30000 } = {}) {
    return new Promise((done, fail) => {
      if (this.state === 'closed') return fail(fault('closed'));
      if (this.#waiting.size > 99) return fail(fault('busy', 'too much waits for a connection'));
      const call = { fail };
      const timer = setTimeout(() => (this.#waiting.delete(call), fail(fault('timeout'))), timeout);
      call.send = () => this.#link.publish({ channel, event, data }).then(done, fail).then(() => clearTimeout(timer));
      this.#waiting.add(call);
      this.#flush();
    });
  }

  on(event, handler) {
    const handlers = (this.#listeners[event] ??= new Set());
    handlers.add(handler);
    return () => handlers.delete(handler);
  }

  close(code = 1000, reason = '') {
    const { transport } = this;
    if (this.state === 'closed') return;
    this.state = 'closed';
    globalThis.removeEventListener?.('online', this.#online);
    globalThis.document?.removeEventListener('visibilitychange', this.#wake);
    Object.values(this.#timers).forEach(clearTimeout);
    this.#probe?.drop();
    this.#link?.drop();
    for (const call of this.#waiting) call.fail(fault('closed'));
    if (transport) this.#emit('close', { code, reason, transport, reconnects: false });
  }

  #emit(event, ...args) { this.#call(this.#listeners[event] ?? [], args); }

  #call(handlers, args) {
    for (const handler of [...handlers]) {
      try {
        handler(...args);
      } catch (error) {
        setTimeout(() => { throw error; }); // reported, and the others get theirs
      }
    }
  }

  #flush() {
    if (this.state === 'open') for (const call of this.#waiting) this.#waiting.delete(call), call.send();
  }

  #later(name, ms, then) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(then, ms);
  }

  /** The set of channels is another. Waits for the end of the tick: several subscribe() make one request. */
  #changed() {
    this.#later('changed', 0, () => {
      for (const link of [this.#link, this.#probe]) if (link?.opened || link?.stop) link.sync();
    });
  }

  #retry(ms) {
    this.#later('retry', ms, () => {
      const remote = !/^(localhost|127\.|\[::1)/.test(this.base.hostname);
      if (ms && remote && globalThis.navigator?.onLine === false) return; // #online() goes on
      this.#link = this.#connect(this.kinds[this.#index]);
    });
  }

  /** On a lesser transport, tries the better ones in turn: soon when it worked before, else now and then. */
  #better(soon) {
    clearTimeout(this.#timers.better);
    if (!this.#index) return;
    const kind = this.kinds[this.#turn++ % this.#index];
    const ms = soon && this.#proven.has(kind) ? 2000 : this.options.upgrade;
    this.#later('better', ms * (0.5 + Math.random()), () => { this.#probe = this.#connect(kind); });
  }

  #connect(kind) {
    const link = { kind };
    link.expect = (ms, late = () => link.end(4009, 'silent')) => {
      clearTimeout(link.timer);
      if (!link.over) Object.assign(link, { late, due: Date.now() + ms, timer: setTimeout(late, ms) });
    };
    link.drop = () => {
      link.over = true;
      clearTimeout(link.timer);
      link.close();
    };
    link.end = (code, reason, error) => link.over || (link.drop(), this.#down(link, code, reason, error));
    link.close = () => link.stop?.abort();
    link.expect(this.options.timeout);
    try {
      kind === 'ws' ? this.#socket(link) : this.#http(link);
    } catch (error) {
      link.expect(0, () => link.end(1006, error.message));
    }
    return link;
  }

  #down(link, code, reason, error) {
    if (link === this.#probe) return this.#better(this.#probe = undefined);
    this.#link = undefined;
    if (link.opened) {
      if (code === 1000) return this.close(code, reason, (this.#link = link)); // PHP's rt_close()
      this.state = 'connecting';
      if (Date.now() - link.opened > 5000) this.#fails = 0;
      this.#emit('close', { code, reason, transport: link.kind, reconnects: true });
    } else {
      this.#emit('error', error?.code ? error : fault('unreachable', `${link.kind}: ${reason || 'no connection'}`));
      if (!this.#proven.has(link.kind) || ++this.#tries > 2) {
        this.#tries = 0;
        this.#index = (this.#index + 1) % this.kinds.length;
        if (this.#index) return this.#retry(0);
      }
    }
    this.#retry(Math.min(this.options.maxDelay, this.options.minDelay * 2 ** this.#fails++) * (0.5 + Math.random() / 2));
  }

  /** Every transport speaks the frames of /ws here. */
  #frame(link, frame) {
    const { type, channel, id, ref } = frame;
    const sub = this.#subs.get(channel);
    if (link.over) return;
    if (type === 'welcome') this.#welcome(link, frame);
    else if (type === 'subscribed' && sub) {
      sub.live = id;
      if (!(age(this.#newest, id) > 0)) this.#newest = id;
      if (!sub.cursor) sub.cursor = sub.last = id;
      else if (frame.recovered === false) this.#gap(channel, sub, frame.oldest);
      sub.done();
    } else if (type === 'message') {
      if (!sub) return this.#emit('message', content(frame), frame);
      if (placed(id) ? age(id, sub.last) <= 0 : sub.seen.has(id)) return;
      sub.cursor = id;
      if (placed(id)) sub.last = id;
      else if (sub.seen.add(id).size > 200) sub.seen.delete([...sub.seen][0]);
      if (placed(id) && !(age(id, this.#newest) <= 0)) this.#settle(id, true);
      this.#call(sub.handlers, [content(frame), frame]);
    } else if (type === 'pong') this.#settle(this.#newest);
    else if (ref === undefined && (type === 'error' || type === 'unsubscribed')) {
      const error = fault(frame.code ?? type, frame.message, channel);
      if (!this.#refuse(channel, error)) this.#emit('error', error);
    }
  }

  #welcome(link, { connection, key, ping = 25 }) {
    Object.assign(link, { id: connection, key, ping: ping * 1000 });
    this.#newest = undefined;
    for (const sub of this.#subs.values()) sub.live = undefined;
    if (link.opened) return; // a stream that was reopened for other channels
    link.opened = Date.now();
    if (link === this.#probe) {
      this.#link?.drop();
      clearTimeout(this.#timers.retry);
      [this.#link, this.#probe] = [link];
    }
    this.state = 'open';
    this.#index = this.kinds.indexOf(link.kind);
    this.#tries = 0;
    this.#proven.add(link.kind);
    if (link.kind === 'ws') link.sync();
    if (this.#timers.kind !== link.kind) this.#emit('transport', (this.#timers.kind = link.kind));
    this.#emit('open', { transport: link.kind, connection });
    this.#flush();
    this.#better(true);
  }

  /** Nothing up to `id` is missing in any channel: the server sends in the order of ids, once it has caught up. */
  #settle(id, sure) {
    this.#newest = id;
    const subs = [...this.#subs.values()];
    if (id && subs.every((sub) => sub.live)) for (const sub of subs) if (sure || placed(sub.cursor)) sub.cursor = id;
  }

  #gap(channel, sub, oldest) {
    if (!(age(oldest, sub.last) <= 0)) this.#emit('gap', { channel, since: sub.cursor, oldest });
  }

  #refuse(channel, error, sub = this.#subs.get(channel)) {
    if (!sub || this.#subs.get(channel) !== sub) return false;
    this.#subs.delete(channel);
    error.channel = channel;
    sub.fail(error);
    this.#emit('error', error);
    return true;
  }

  #socket(link) {
    const answers = new Map();
    const asked = new Map();
    const url = this.#url('ws');
    const socket = new this.options.WebSocket(url.replace('http', 'ws'), 'realtime.v1');
    const send = (frame, answer) => {
      answers.set((frame.ref = ++this.#refs), answer);
      if (socket.readyState === 1) socket.send(JSON.stringify(frame));
    };
    const quiet = () => send({ type: 'ping' }) ?? link.expect(10000);
    socket.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      answers.get(frame.ref)?.(frame);
      answers.delete(frame.ref);
      this.#frame(link, frame);
      link.expect(link.ping, quiet);
    };
    socket.onclose = ({ code, reason }) => link.end(code, reason);
    socket.onerror = () => {}; // onclose follows
    link.check = quiet;
    link.close = () => {
      socket.close();
      for (const answer of answers.values()) answer?.({ code: 'lost', message: 'the connection was lost' });
    };
    link.sync = () => {
      for (const [channel, sub] of this.#subs) {
        if (asked.get(channel) === sub) continue;
        asked.set(channel, sub);
        send({ type: 'subscribe', channel, since: sub.cursor }, ({ type, code, message }) => {
          if (type === 'error') this.#refuse(channel, fault(code, message), sub);
        });
      }
      for (const channel of asked.keys()) {
        if (!this.#subs.has(channel) && asked.delete(channel)) send({ type: 'unsubscribe', channel });
      }
    };
    link.publish = (body) => new Promise((done, fail) => {
      send({ type: 'publish', ...body }, (answer) => {
        answer.type === 'reply' ? done(content(answer)) : fail(fault(answer.code, answer.message));
      });
    });
  }

  #http(link) {
    const get = async (path, query, init) => {
      const { fetch, credentials } = this.options;
      const response = await fetch(this.#url(path, query), { credentials, cache: 'no-store', ...init });
      if (response.ok) return response;
      const { error = {} } = await response.json().catch(() => ({}));
      throw fault(error.code ?? 'http', error.message ?? `HTTP ${response.status}`, error.channel);
    };
    link.publish = async (body) => content(await (await get('publish', [], {
      method: 'POST', headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ ...body, connection: link.id, key: link.key }),
    })).json());
    link.sync = async () => {
      link.stop?.abort();
      const { signal } = (link.stop = new AbortController());
      link.expect(this.options.timeout);
      while (!signal.aborted) {
        const all = [...this.#subs];
        const fresh = all.filter(([, sub]) => !sub.cursor);
        // A poll for new channels only finds where they stand, and the first one opens the session: at once, both.
        const subs = link.kind === 'poll' && fresh.length ? fresh : all;
        const ids = subs.map(([, sub]) => sub.cursor).filter(Boolean);
        const since = ids.filter(placed).sort(age)[0] ?? ids[0];
        const query = subs.map(([channel]) => ['channel', channel]);
        if (since) query.push(['since', since]);
        try {
          await (link.kind === 'sse' ? this.#stream : this.#poll).call(this, link, subs, query, (path, query) => get(path, query, { signal }), signal);
        } catch (error) {
          if (signal.aborted) return;
          const channel = error.channel ?? (subs.length === 1 && /forbidden|_channel/.test(error.code) && subs[0][0]);
          if (error.code === 'no_session') link.key = undefined;
          else if (!this.#refuse(channel, error)) link.end(1006, error.message, error);
        }
      }
    };
    link.sync();
  }

  /** Read by fetch(): an EventSource hides heartbeats, so a dead connection looks like a silent one. */
  async #stream(link, subs, query, get, signal) {
    const reader = (await get('sse', [...query, ['meta', 1]])).body.getReader();
    const decoder = new TextDecoder();
    for (let text = ''; ;) {
      const { done, value } = await reader.read();
      if (signal.aborted) return;
      if (done) return link.end(1006, 'the stream ended');
      const blocks = (text + decoder.decode(value, { stream: true })).split('\n\n');
      text = blocks.pop();
      for (const block of blocks) {
        const data = block.split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5)).join('\n');
        if (data) this.#frame(link, JSON.parse(data));
        else if (block === ':') this.#frame(link, { type: 'pong' });
      }
      if (link.opened) link.expect(2.5 * link.ping);
    }
  }

  async #poll(link, subs, query, get, signal) {
    const wait = link.key && subs.every(([, sub]) => sub.cursor) ? 25 : 0;
    if (link.key) query.push(['connection', link.id], ['key', link.key]);
    link.expect(wait * 1000 + this.options.timeout);
    const body = await (await get('poll', [...query, ['session', 1], ['timeout', wait]])).json();
    if (signal.aborted) return;
    if (link.key !== body.key) this.#welcome(link, body);
    for (const [channel, sub] of subs) if (sub.cursor && body.recovered === false) this.#gap(channel, sub, body.oldest);
    for (const frame of body.messages) this.#frame(link, frame);
    for (const [, sub] of subs) {
      sub.last ??= body.cursor;
      sub.cursor = body.cursor;
      sub.done();
    }
  }

  #url(path, query = []) {
    const url = new URL(path, this.base);
    url.search = new URLSearchParams([...Object.entries(this.options.params), ...query]);
    return url.href;
  }
}
