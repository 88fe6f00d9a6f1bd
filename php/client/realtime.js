/* realtime.js: the client of the PHP extension "realtime". MIT licence. Documented in realtime.d.ts.
 *   const rt = new Realtime('/');
 *   const off = rt.subscribe('orders', (data, message) => …);
 *   const reply = await rt.publish('chat', { text: 'hello' });
 * WebSocket, else Server-Sent Events, else long polling. Reconnects, and resumes after the newest id it has. */
const fault = (code, text = code, channel) => Object.assign(new Error(text), { code, channel });
const content = ({ data = null, encoding }) => (encoding ? Uint8Array.from(atob(data), (c) => c.charCodeAt(0)) : data);
// Ids are epoch-number; a publisher's own have no place in that order.
const place = (id) => /^([\da-f]{8})-(\d+)$/.exec(id) ?? [];
const age = (a, b) => (place(a)[1] === place(b)[1] ? place(a)[2] - place(b)[2] : NaN);

export function Realtime(base = '/', options) {
	const root = new URL(base.replace(/\/?$/, '/'), globalThis.location?.href);
	const set = {
		transports: ['ws', 'sse', 'poll'], params: {}, credentials: 'same-origin', timeout: 8000, minDelay: 500,
		maxDelay: 30000, upgrade: 60000, WebSocket: globalThis.WebSocket, fetch: (...args) => fetch(...args), ...options,
	};
	const kinds = set.transports;
	const subs = new Map(); // channel -> { cursor: resume after it, last: delivered, live: newest as of subscribing, … }
	const waiting = new Set(); // publications until there is a connection
	const worked = new Set(); // kinds
	const listeners = {};
	const timers = {};
	let link, probe, newest; // the connection; a better one, tried meanwhile; the newest id on this connection
	let [index, turn, tries, fails, refs] = [0, 0, 0, 0, 0];

	const later = (name, ms, then) => {
		clearTimeout(timers[name]);
		timers[name] = setTimeout(then, ms);
	};
	const call = (handlers, ...args) => handlers?.forEach((handler) => {
		try { handler(...args); } catch (error) { setTimeout(() => { throw error; }); }
	});
	const emit = (event, ...args) => call(listeners[event], ...args);
	const flush = () => this.state === 'open' && waiting.forEach((send) => waiting.delete(send) && send());
	const url = (path, query = []) => `${new URL(path, root)}?${new URLSearchParams([...Object.entries(set.params), ...query])}`;
	// At the end of the tick, so that several subscribe() make one request.
	const changed = () => later('changed', 0, () => [link, probe].forEach((each) => each?.sync()));
	const refuse = (error, channel = error.channel, sub = subs.get(channel)) => {
		if (!sub || subs.get(channel) !== sub) return false;
		subs.delete(channel);
		sub.fail(Object.assign(error, { channel }));
		emit('error', error);
		return true;
	};
	const retry = (ms) => later('retry', ms, () => { link = connect(kinds[index]); });
	const offline = () => clearTimeout(timers.retry);
	const online = () => (link ? link.late() : retry(0));
	const watch = (how) => {
		globalThis[how]?.('online', online);
		globalThis[how]?.('offline', offline);
	};
	// On a lesser transport, tries a better one: soon when it worked before, else now and then.
	const better = (soon) => {
		const kind = kinds[turn++ % index];
		const ms = soon && worked.has(kind) ? 2000 : set.upgrade;
		if (kind) later('better', ms * (0.5 + Math.random()), () => { probe = connect(kind); });
	};
	const leave = (state, code, reason) => {
		const { transport } = this;
		Object.assign(this, { state, transport: null, connection: null });
		if (transport) emit('close', { code, reason, transport, reconnects: state !== 'closed' });
	};

	const connect = (kind) => {
		const self = { kind, sync() {}, close() {} };
		self.expect = (ms, late = () => self.end(4009, 'silent')) => {
			clearTimeout(self.timer);
			if (!self.over) Object.assign(self, { late, timer: setTimeout(late, ms) });
		};
		self.drop = () => {
			self.over = true;
			self.expect();
			self.close();
		};
		self.end = (code, reason, error) => self.over || down(self, self.drop() ?? code, reason, error);
		self.expect(set.timeout);
		try { (kind === 'ws' ? socket : http)(self); } catch (error) { self.expect(0, () => self.end(1006, error.message)); }
		return self;
	};
	const down = (self, code, reason, error) => {
		if (self === probe) return better((probe = undefined));
		link = undefined;
		if (self.opened) {
			if (code === 1000) return this.close(code, reason); // rt_close() in PHP
			if (Date.now() - self.opened > 5000) fails = 0;
			leave('connecting', code, reason);
		} else {
			emit('error', error?.code ? error : fault('unreachable', `${self.kind}: ${reason || 'no connection'}`));
			if (!worked.has(self.kind) || ++tries > 2) {
				index = (index + 1) % kinds.length;
				tries = 0;
				if (index) return retry(0);
			}
		}
		retry(Math.min(set.maxDelay, set.minDelay * 2 ** fails++) * (0.5 + Math.random() / 2));
	};

	// Every transport speaks the frames of /ws from here on.
	const welcome = (self, { connection, key, ping = 25 }) => {
		const transport = self.kind;
		Object.assign(self, { key, id: connection, ping: ping * 1000 });
		newest = undefined;
		for (const sub of subs.values()) sub.live = undefined;
		if (self.opened) return (this.connection = connection); // a stream that was reopened for other channels
		if (self === probe) link?.drop(), offline(), [link, probe] = [self];
		self.opened = Date.now();
		index = kinds.indexOf(transport);
		tries = 0;
		worked.add(transport);
		Object.assign(this, { state: 'open', transport, connection });
		if (transport === 'ws') self.sync();
		if (timers.kind !== transport) emit('transport', (timers.kind = transport));
		emit('open', { transport, connection });
		flush();
		better(true);
	};
	// The server sends in the order of ids once it has caught up: then no channel misses anything up to `id`.
	const settle = (id) => {
		newest = id;
		if ([...subs.values()].every((sub) => sub.live)) subs.forEach((sub) => { sub.cursor = id; });
	};
	const receive = (self, frame) => {
		const { type, channel, id, oldest } = frame;
		const sub = subs.get(channel);
		if (type === 'welcome') welcome(self, frame);
		else if (type === 'subscribed' && sub) {
			sub.live = id;
			if (!(age(newest, id) > 0)) newest = id;
			if (!sub.cursor) sub.cursor = sub.last = id;
			else if (frame.recovered === false && !(age(oldest, sub.last) <= 0)) emit('gap', { channel, since: sub.cursor, oldest });
			sub.done();
		} else if (type === 'message') {
			if (!sub) return emit('message', content(frame), frame);
			if (place(id)[0] ? age(id, sub.last) <= 0 : sub.seen.includes(id)) return;
			sub.cursor = id;
			if (place(id)[0]) sub.last = id;
			else sub.seen = [id, ...sub.seen].slice(0, 99);
			if (age(id, newest) > 0) settle(id);
			call(sub.handlers, content(frame), frame);
		} else if (type === 'pong') settle(newest);
		else if (frame.ref === undefined && /^(error|unsubscribed)$/.test(type)) {
			const error = fault(frame.code ?? type, frame.message, channel);
			refuse(error) || emit('error', error);
		}
	};

	const socket = (self) => {
		const answers = new Map();
		const asked = new Map();
		const ws = new set.WebSocket(url('ws').replace('http', 'ws'), 'realtime.v1');
		const send = (frame, answer) => {
			answers.set((frame.ref = ++refs), answer);
			if (ws.readyState === 1) ws.send(JSON.stringify(frame));
		};
		ws.onmessage = ({ data }) => {
			const frame = JSON.parse(data);
			if (self.over) return;
			answers.get(frame.ref)?.(frame);
			answers.delete(frame.ref);
			receive(self, frame);
			self.expect(self.ping, () => self.expect(10000, send({ type: 'ping' })));
		};
		ws.onclose = ({ code, reason }) => self.end(code, reason);
		ws.onerror = () => {}; // onclose follows
		self.close = () => {
			ws.close();
			answers.forEach((answer) => answer?.({ code: 'lost', message: 'the connection was lost' }));
		};
		self.sync = () => {
			if (self.opened) subs.forEach((sub, channel) => {
				if (asked.get(channel) === sub) return;
				asked.set(channel, sub);
				send({ type: 'subscribe', channel, since: sub.cursor }, ({ type, code, message }) =>
					type === 'error' && refuse(fault(code, message), channel, sub));
			});
			asked.forEach((_, channel) => subs.has(channel) || send({ type: 'unsubscribe', channel }, asked.delete(channel)));
		};
		self.publish = (body) => new Promise((done, fail) => send({ type: 'publish', ...body }, (answer) =>
			answer.type === 'reply' ? done(content(answer)) : fail(fault(answer.code, answer.message))));
	};

	const http = (self) => {
		let stop;
		const get = async (path, query, init = { signal: stop.signal }) => {
			const response = await set.fetch(url(path, query), { credentials: set.credentials, ...init });
			if (response.ok) return response;
			const { error = {} } = await response.json().catch(() => ({}));
			throw fault(error.code ?? 'http', error.message ?? `HTTP ${response.status}`, error.channel);
		};
		const poll = async (chosen, query, wait, signal) => {
			if (self.key) query.push(['connection', self.id], ['key', self.key]);
			const body = await (await get('poll', [...query, ['session', 1], ['timeout', wait]])).json();
			if (signal.aborted) return;
			if (self.key !== body.key) welcome(self, body);
			for (const [channel] of chosen) receive(self, { ...body, type: 'subscribed', channel, id: body.cursor });
			for (const frame of body.messages) receive(self, frame);
			for (const [, sub] of chosen) sub.cursor = body.cursor;
		};
		// Not by an EventSource: that hides heartbeats, so that a dead connection looks like a silent one.
		const stream = async (query, signal) => {
			const reader = (await get('sse', [...query, ['meta', 1]])).body.getReader();
			const decoder = new TextDecoder();
			for (let text = '', part; !(part = await reader.read()).done;) {
				const blocks = (text + decoder.decode(part.value, { stream: true })).split('\n\n');
				text = blocks.pop();
				for (const block of blocks) {
					const data = block.split('\n').filter((line) => /^data:/.test(line)).map((line) => line.slice(5)).join('');
					if (signal.aborted) return;
					if (data || block === ':') receive(self, data ? JSON.parse(data) : { type: 'pong' });
				}
				if (self.opened) self.expect(2.5 * self.ping);
			}
			self.end(1006, 'the stream ended');
		};
		self.close = () => stop?.abort();
		self.publish = async (body) => content(await (await get('publish', [], {
			method: 'POST',
			headers: { 'Content-Type': 'application/json' },
			body: JSON.stringify({ ...body, connection: self.id, key: self.key }),
		})).json());
		self.sync = async () => {
			self.close();
			const { signal } = (stop = new AbortController());
			while (!signal.aborted) {
				// A poll for new channels finds where they stand, and the first one opens the session: at once, both.
				const fresh = [...subs].filter(([, sub]) => self.kind === 'poll' && !sub.cursor);
				const chosen = fresh.length ? fresh : [...subs];
				const ids = chosen.map(([, sub]) => sub.cursor).filter(Boolean);
				const since = ids.filter((id) => place(id)[0]).sort(age)[0] ?? ids[0];
				const query = chosen.map(([channel]) => ['channel', channel]);
				if (since) query.push(['since', since]);
				const wait = self.key && !fresh.length ? 25 : 0;
				self.expect(wait * 1000 + set.timeout);
				try {
					await (self.kind === 'poll' ? poll(chosen, query, wait, signal) : stream(query, signal));
				} catch (error) {
					if (signal.aborted) return;
					if (chosen.length === 1 && /forbidden|_channel/.test(error.code)) error.channel ??= chosen[0][0];
					if (error.code === 'no_session') self.key = undefined;
					else if (!refuse(error)) self.end(1006, error.message, error);
				}
			}
		};
		self.sync();
	};

	Object.assign(this, {
		state: 'connecting', transport: null, connection: null,
		subscribe(channel, handler, { since } = {}) {
			let sub = subs.get(channel);
			if (!sub) {
				sub = { handlers: new Set(), seen: [], cursor: since, last: since };
				sub.ready = new Promise((done, fail) => Object.assign(sub, { done, fail }));
				sub.ready.catch(() => {}); // who does not ask hears of it by "error"
				subs.set(channel, sub);
				changed();
			}
			const entry = handler.bind(); // the same function may come twice
			sub.handlers.add(entry);
			return Object.assign(() => {
				sub.handlers.delete(entry);
				if (!sub.handlers.size && subs.get(channel) === sub) subs.delete(channel), changed();
			}, { ready: sub.ready });
		},
		publish: (channel, data, { event, timeout = 30000 } = {}) => new Promise((done, fail) => {
			const closed = () => fail(fault('closed'));
			if (this.state === 'closed') return closed();
			if (waiting.size > 99) return fail(fault('busy'));
			const send = () => this.state === 'closed' ? closed() : link.publish({ channel, event, data }).then(done, fail);
			waiting.add(send);
			setTimeout(() => fail(fault('timeout'), waiting.delete(send)), timeout);
			flush();
		}),
		on(event, handler) {
			(listeners[event] ??= new Set()).add(handler);
			return () => listeners[event].delete(handler);
		},
		close(code = 1000, reason = '') {
			watch('removeEventListener');
			Object.values(timers).forEach(clearTimeout);
			probe?.drop();
			link?.drop();
			leave('closed', code, reason);
			waiting.forEach((send) => send());
		},
	});
	watch('addEventListener');
	retry(0);
}
