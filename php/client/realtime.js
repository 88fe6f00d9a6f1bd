/* realtime.js, the client of the PHP extension "realtime" (MIT). How to use it: realtime.d.ts. */
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
	// In microtasks: an exception in one handler is reported and harms no other.
	const call = (handlers, ...args) => handlers?.forEach((handler) => queueMicrotask(() => handler(...args)));
	const emit = (event, info) => call(listeners[event], info);
	const url = (path, query = []) => `${new URL(path, root)}?${new URLSearchParams([...Object.entries(params), ...query])}`;
	const changed = () => later('changed', 0, () => [link, probe].forEach((each) => each?.sync()));
	const retry = (ms) => later('retry', ms, () => { link = connect(kinds[index]); });
	// Tries a better transport: soon when it worked before, else now and then.
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
	const down = (me, code, reason, error) => {
		if (me === probe) return better((probe = undefined));
		link = undefined;
		if (me.opened) {
			if (Date.now() - me.opened > 5000) fails = 0;
			if (leave(code === 1000 ? 'closed' : 'connecting', code, reason)) return; // rt_close()
		} else {
			emit('error', error?.code ? error : fault('unreachable', `${me.kind}: ${reason || 'no connection'}`));
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
		if (closed) {
			Object.values(timers).forEach(clearTimeout);
			probe?.end();
			link?.end();
			waiting.forEach((send) => send('closed'));
		}
		return closed;
	};

	// Every transport speaks the frames of /ws from here on.
	const welcome = (me, { connection, key, ping = 25 }) => {
		const { kind: transport, opened } = me;
		Object.assign(me, { connection, key, ping: ping * 1000, opened: opened ?? Date.now() });
		if (me === probe) link?.end(), clearTimeout(timers.retry), [link, probe] = [me];
		newest = undefined;
		subs.forEach((sub) => { sub.link = undefined; });
		Object.assign(this, { state: 'open', transport, connection });
		waiting.forEach((send) => send());
		if (opened) return; // a stream was reopened for other channels
		index = kinds.indexOf(transport);
		worked.add(transport);
		if (transport === 'ws') me.sync();
		if (timers.kind !== transport) emit('transport', (timers.kind = transport));
		emit('open', { transport, connection });
		better(true);
	};
	// Ids come in order once the past is through: then no channel misses anything up to this one.
	const settle = (id) => {
		newest = id;
		if ([...subs.values()].every((sub) => sub.link)) subs.forEach((sub) => { sub.cursor = id; });
	};
	const refuse = (error) => {
		const sub = subs.get(error.channel);
		if (sub && (!sub.link || error.code === 'unsubscribed')) sub.fail(error, subs.delete(error.channel));
		emit('error', error);
		return sub;
	};
	const receive = (me, frame) => {
		const { type, channel, id, oldest } = frame;
		const sub = subs.get(channel);
		if (me.over) return;
		if (type === 'welcome') welcome(me, frame);
		else if (type === 'pong') settle(newest);
		else if (type === 'error' || (type === 'unsubscribed' && sub?.link)) refuse(fault(frame.code ?? type, frame.message, channel));
		else if (type === 'message') {
			if (sub) {
				if (place(id) ? age(id, sub.last) <= 0 : sub.seen.includes(id)) return;
				if (place(id)) sub.last = id;
				else sub.seen = [id, ...sub.seen].slice(0, 99);
				sub.cursor = id;
				if (age(id, newest) > 0) settle(id);
			}
			call(sub?.handlers ?? listeners.message, content(frame), frame);
		} else if (type === 'subscribed' && sub) {
			sub.link = me;
			if (!(age(newest, id) > 0)) newest = id;
			if (!sub.cursor) sub.cursor = sub.last = id;
			else if (frame.recovered === false && !(age(oldest, sub.last) <= 0)) emit('gap', { channel, since: sub.cursor, oldest });
			sub.done();
		}
	};

	const socket = async (me) => {
		const answers = new Map();
		const asked = new Set();
		const send = (frame) => ws.readyState === 1 && ws.send(JSON.stringify(frame));
		me.close = () => {
			ws?.close();
			answers.forEach((answer) => answer({ code: 'lost', message: 'the connection was lost' }));
		};
		me.sync = () => me.opened && subs.forEach((sub, channel) => {
			if (!asked.has(sub)) send({ type: 'subscribe', channel, since: sub.cursor }, asked.add(sub));
		});
		me.leave = (channel) => send({ type: 'unsubscribe', channel });
		me.publish = (body) => new Promise((done, fail) => {
			answers.set(++refs, (frame) => (frame.type === 'reply' ? done(content(frame)) : fail(fault(frame.code, frame.message))));
			send({ type: 'publish', ref: refs, ...body });
		});
		const ws = new WebSocket(url('ws').replace('http', 'ws'), 'realtime.v1');
		ws.onmessage = ({ data }) => {
			const frame = JSON.parse(data);
			const answer = answers.get(frame.ref);
			if (answer) answer(frame, answers.delete(frame.ref));
			else receive(me, frame);
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
		const poll = async (chosen, query) => {
			if (me.key) query.push(['connection', me.connection], ['key', me.key]);
			const body = await get('poll', query);
			if (body.key) welcome(me, body);
			for (const [channel] of me.key ? chosen : []) receive(me, { ...body, type: 'subscribed', channel, id: body.cursor });
			for (const frame of body.messages) receive(me, frame);
			for (const [, sub] of chosen) sub.last ??= body.cursor, sub.cursor = body.cursor;
		};
		// An EventSource would hide heartbeats, so that a dead connection looks like a silent one.
		const stream = async (_, query) => {
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
			method: 'POST', signal: null, headers: { 'Content-Type': 'application/json' },
			body: JSON.stringify({ ...body, ...(me.connection && { connection: me.connection, key: me.key }) }),
		}));
		me.sync = async () => {
			me.close();
			me.key = null;
			const { signal } = (stop = new AbortController());
			while (!signal.aborted) {
				// A poll for new channels only finds where they stand; the one after it opens a session.
				const fresh = [...subs].filter(([, sub]) => me.kind === 'poll' && !sub.cursor);
				const chosen = fresh.length ? fresh : [...subs];
				const ids = chosen.map(([, sub]) => sub.cursor).filter(Boolean);
				const wait = me.key ? 25 : 0;
				me.expect(wait * 1000 + timeout);
				try {
					if (!subs.size) return welcome(me, { key: await get('healthz') }, me.expect(2 ** 31 - 1));
					await (me.kind === 'poll' ? poll : stream)(chosen, [
						...chosen.map(([channel]) => ['channel', channel]), ['since', ids.filter(place).sort(age)[0] ?? ids[0] ?? ''],
						['meta', 1], ['session', fresh.length ? 0 : 1], ['timeout', wait],
					]);
				} catch (error) {
					if (signal.aborted) return;
					if (error.code === 'no_session') me.key = null;
					else if (!error.channel || !refuse(error)) me.end(1006, error.message, error);
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
			if (!code && !link?.key) return waiting.add(send);
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
