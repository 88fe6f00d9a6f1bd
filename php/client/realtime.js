/* realtime.js, the client of the PHP extension "realtime" (MIT). How to use it, and how it works: realtime.d.ts. */
const fault = (code, text = code, channel) => Object.assign(Error(text), { code, channel });
const content = ({ data = null, encoding }) => (encoding ? Uint8Array.from(atob(data), (c) => c.charCodeAt(0)) : data);
// Ids are epoch-number; a publisher's own have no place in that order.
const place = (id) => /^([\da-f]{8})-(\d+)$/.exec(id);
const age = (a, b, [, era, n] = place(a) ?? [], [, other, m] = place(b) ?? []) => (era === other ? n - m : NaN);

export function Realtime(base = '/', {
	transports: kinds = ['ws', 'sse', 'poll'], params = {}, timeout = 8000, minDelay = 500, maxDelay = 30000, upgrade = 60000,
	WebSocket = globalThis.WebSocket, fetch = globalThis.fetch,
} = {}) {
	const root = new URL(base.replace(/\/?$/, '/'), globalThis.location?.href);
	const subs = new Map(); // channel -> { cursor: resume after it, last: delivered, link: where it stands, … }
	const waiting = new Set(); // publications
	const worked = new Set(); // kinds
	const listeners = {};
	const timers = {};
	let link, probe, newest; // the connection; a better one on trial; the newest id
	let [index, turn, fails, refs] = [0, 0, 0, 0];

	const later = (name, ms, then) => {
		clearTimeout(timers[name]);
		timers[name] = setTimeout(then, ms);
	};
	const call = (handlers, ...args) => handlers?.forEach((handler) => queueMicrotask(() => handler(...args)));
	const emit = (event, info) => call(listeners[event], info);
	const url = (path, query = []) => `${new URL(path, root)}?${new URLSearchParams([...Object.entries(params), ...query])}`;
	const changed = () => later('changed', 0, () => [link, probe].forEach((each) => each?.sync()));
	const retry = (ms) => later('retry', ms, () => { link = connect(kinds[index]); });
	const better = (soon) => {
		const kind = kinds[turn++ % index];
		const ms = soon && worked.has(kind) ? 2000 : upgrade;
		if (kind) later('better', ms * (0.5 + Math.random()), () => { probe = connect(kind); });
	};
	const connect = (kind) => {
		const me = { kind };
		me.expect = (ms, late = () => me.end(4009, 'silent')) => {
			clearTimeout(me.timer);
			if (!me.over) me.timer = setTimeout(late, ms);
		};
		me.end = (code, reason, error) => {
			if (me.over) return;
			me.over = true;
			me.expect();
			me.close();
			if (code) down(me, code, reason, error);
		};
		me.expect(timeout);
		(kind === 'ws' ? socket : http)(me).catch((error) => me.end(1006, error.message));
		return me;
	};
	const down = (me, code, reason, error = 'unreachable') => {
		if (me === probe) return better((probe = null));
		link = null;
		if (me.opened) {
			if (Date.now() - me.opened > 5000) fails = 0;
			if (leave(code === 1000 ? 'closed' : 'connecting', code, reason)) return; // rt_close()
		} else {
			emit('error', fault(error, `${me.kind}: ${reason || 'no connection'}`));
			if (!worked.has(me.kind) || fails > 2) {
				index = (index + 1) % kinds.length;
				if (index) return retry(0);
			}
		}
		retry(Math.min(maxDelay, minDelay * 2 ** fails++) * (0.5 + Math.random() / 2));
	};
	const leave = (state, code, reason) => {
		const { transport } = this;
		const closed = state === 'closed';
		Object.assign(this, { state, transport: null, connection: null });
		if (transport) emit('close', { code, reason, transport, reconnects: !closed });
		if (!closed) return;
		Object.values(timers).forEach(clearTimeout);
		[link, probe].forEach((each) => each?.end());
		waiting.forEach((send) => send('closed'));
		return true;
	};

	// Ids come in order once the past is through: then no channel misses anything up to this one.
	const settle = (id = newest) => {
		newest = id;
		if ([...subs.values()].every((sub) => sub.link)) subs.forEach((sub) => { sub.cursor = id; });
	};
	const refuse = (error) => {
		const sub = subs.get(error.channel);
		if (sub && (!sub.link || error.code === 'unsubscribed')) sub.fail(error, subs.delete(error.channel));
		emit('error', error);
		return sub;
	};
	// Every transport speaks the frames of /ws here.
	const receive = (me, frame) => me.over || heard[frame.type]?.(frame, subs.get(frame.channel), me);
	const heard = {
		welcome: ({ connection, key, ping = 25 }, _, me) => {
			const { kind: transport, opened } = me;
			Object.assign(me, { proof: { connection, key }, ping: ping * 1000, opened: opened ?? Date.now() });
			if (me === probe) link?.end(), clearTimeout(timers.retry), [link, probe] = [me];
			newest = null;
			subs.forEach((sub) => { sub.link = null; });
			Object.assign(this, { state: 'open', transport, connection });
			waiting.forEach((send) => send());
			if (opened) return; // a stream was reopened for other channels
			index = kinds.indexOf(transport);
			worked.add(transport);
			if (transport === 'ws') me.sync();
			if (timers.kind !== transport) emit('transport', (timers.kind = transport));
			emit('open', { transport, connection });
			better(true);
		},
		subscribed: ({ channel, id, recovered, oldest }, sub = {}, me) => {
			newest = id;
			sub.link = me;
			if (!sub.cursor) sub.cursor = sub.last = id;
			else if (recovered === false && !(age(oldest, sub.last) <= 0)) emit('gap', { channel, since: sub.cursor, oldest });
			sub.done?.();
		},
		message: (frame, sub) => {
			const { id } = frame;
			if (sub) {
				if (place(id) ? age(id, sub.last) <= 0 : sub.seen.includes(id)) return;
				if (place(id)) sub.last = id;
				else sub.seen = [id, ...sub.seen].slice(0, 99);
				sub.cursor = id;
				if (age(id, newest) > 0) settle(id);
			}
			call(sub?.handlers ?? listeners.message, content(frame), frame);
		},
		pong: () => settle(),
		error: ({ code, message, channel }) => refuse(fault(code, message, channel)),
		unsubscribed: ({ type, channel }, sub) => sub?.link && refuse(fault(type, type, channel)),
	};

	const socket = async (me) => {
		const answers = new Map();
		const send = (frame) => ws.readyState === 1 && ws.send(JSON.stringify(frame));
		me.close = () => {
			ws?.close();
			answers.forEach(([, fail]) => fail(fault('lost')));
		};
		me.sync = () => me.opened && subs.forEach((sub, channel) => {
			if (sub.asked !== me) send({ type: 'subscribe', channel, since: sub.cursor }, (sub.asked = me));
		});
		me.leave = (channel) => send({ type: 'unsubscribe', channel });
		me.publish = (body) => new Promise((...both) => {
			answers.set(++refs, both);
			send({ type: 'publish', ref: refs, ...body });
		});
		const ws = new WebSocket(url('ws').replace('http', 'ws'), 'realtime.v1');
		ws.onmessage = ({ data }) => {
			const frame = JSON.parse(data);
			const [done, fail] = answers.get(frame.ref) ?? [];
			if (!done) receive(me, frame);
			else if (frame.type === 'reply') done(content(frame));
			else fail(fault(frame.code, frame.message));
			answers.delete(frame.ref);
			me.expect(me.ping, () => me.expect(timeout, send({ type: 'ping' })));
		};
		ws.onclose = ({ code, reason }) => me.end(code, reason);
		ws.onerror = () => {}; // onclose follows
	};

	const http = async (me) => {
		let stop;
		const get = async (path, query, init) => {
			const response = await fetch(url(path, query), { signal: stop.signal, ...init });
			if (response.ok) return path === 'sse' ? response.body.getReader() : response.json();
			const { error = {} } = await response.json().catch(() => ({}));
			throw fault(error.code ?? 'http', error.message ?? `HTTP ${response.status}`, error.channel);
		};
		const poll = async (query, chosen) => {
			const body = await get('poll', [...query, ...Object.entries(me.proof ?? {})]);
			if (body.key) receive(me, { ...body, type: 'welcome' });
			for (const [channel, { cursor }] of chosen) cursor && receive(me, { ...body, type: 'subscribed', channel, id: body.cursor });
			for (const frame of body.messages) receive(me, frame);
			for (const [, sub] of chosen) sub.last ??= body.cursor, sub.cursor = body.cursor;
		};
		// No EventSource: it hides heartbeats, the names of events and the reason of a refusal.
		const stream = async (query) => {
			const reader = await get('sse', query);
			const decoder = new TextDecoder();
			for (let text = '', part; !(part = await reader.read()).done;) {
				const blocks = (text + decoder.decode(part.value, { stream: true })).split('\n\n');
				text = blocks.pop();
				for (const block of blocks) {
					const data = block.match(/^data:.*/gm)?.map((line) => line.slice(5)).join('');
					if (data || block === ':') receive(me, data ? JSON.parse(data) : { type: 'pong' });
				}
				if (me.opened) me.expect(2.5 * me.ping);
			}
			me.end(1006, 'the stream ended');
		};
		me.close = () => stop?.abort();
		me.publish = async (body) => content(await get('publish', [], {
			method: 'POST', signal: null, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ ...body, ...me.proof }),
		}));
		me.sync = async () => {
			me.close();
			me.proof = null;
			const { signal } = (stop = new AbortController());
			while (!signal.aborted) {
				// A poll for new channels only finds where they stand; the one after it opens a session.
				const fresh = [...subs].filter(([, sub]) => me.kind === 'poll' && !sub.cursor);
				const chosen = fresh.length ? fresh : [...subs];
				const ids = chosen.map(([, sub]) => sub.cursor);
				const wait = me.proof ? 25 : 0;
				me.expect(wait * 1000 + timeout);
				try {
					if (!subs.size) return receive(me, { ...await get('healthz'), type: 'welcome' }, me.expect(2 ** 31 - 1));
					await (me.kind === 'poll' ? poll : stream)([
						...chosen.map(([channel]) => ['channel', channel]), ['since', ids.filter(place).sort(age)[0] ?? ids.find(Boolean) ?? ''],
						['meta', 1], ['session', fresh.length ? 0 : 1], ['timeout', wait],
					], chosen);
				} catch (error) {
					if (signal.aborted) return;
					if (error.code === 'no_session') me.proof = null;
					else if (!error.channel || !refuse(error)) me.end(1006, error.message, error.code);
				}
			}
		};
		me.sync();
	};

	this.subscribe = (channel, handler, { since } = {}) => {
		const sub = subs.get(channel) ?? { handlers: new Set(), seen: [], cursor: since, last: since };
		sub.handlers.add(handler);
		sub.ready ??= new Promise((done, fail) => {
			changed(subs.set(channel, Object.assign(sub, { done, fail })));
			if (!/^[\w=@,.;:/-]{1,200}$/.test(channel)) refuse(fault('bad_channel', 'not a channel name', channel));
		});
		sub.ready.catch(() => {}); // who does not ask hears of it by "error"
		return Object.assign(() => {
			sub.handlers.delete(handler);
			if (sub.handlers.size || subs.get(channel) !== sub) return;
			sub.link?.leave?.(channel);
			changed(subs.delete(channel));
		}, { ready: sub.ready });
	};
	this.publish = (channel, data, { event, timeout = 30000 } = {}) => new Promise((done, fail) => {
		const timer = setTimeout(() => send('timeout'), timeout);
		const send = (code) => {
			if (!code && !link?.proof) return waiting.add(send);
			waiting.delete(send);
			(code ? Promise.reject(fault(code)) : link.publish({ channel, event, data })).then(done, fail).then(() => clearTimeout(timer));
		};
		send(this.state === 'closed' ? 'closed' : waiting.size > 99 && 'busy');
	});
	this.on = (event, handler) => {
		(listeners[event] ??= new Set()).add(handler);
		return () => listeners[event].delete(handler);
	};
	this.close = (code = 1000, reason = '') => { leave('closed', code, reason); };
	this.state = 'connecting';
	globalThis.addEventListener?.('offline', () => clearTimeout(timers.retry));
	globalThis.addEventListener?.('online', () => (link ? link.end(4009, 'online') : this.state === 'closed' || retry(0)));
	retry(0);
}
