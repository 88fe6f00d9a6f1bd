/* realtime.js, the client of the PHP extension "realtime". MIT licence. How to use it: realtime.d.ts.
 * WebSocket, else Server-Sent Events, else long polling; reconnects, and resumes after the newest id it has. */
const fault = (code, text = code, channel) => Object.assign(new Error(text), { code, channel });
const content = ({ data = null, encoding }) => (encoding ? Uint8Array.from(atob(data), (c) => c.charCodeAt(0)) : data);
// Ids are epoch-number; a publisher's own have no place in that order.
const place = (id) => /^([\da-f]{8})-(\d+)$/.exec(id) ?? [];
const age = (a, b) => (place(a)[1] === place(b)[1] ? place(a)[2] - place(b)[2] : NaN);

export function Realtime(base = '/', {
	transports: kinds = ['ws', 'sse', 'poll'], params = {}, timeout = 8000, minDelay = 500, maxDelay = 30000, upgrade = 60000,
	WebSocket = globalThis.WebSocket, fetch = globalThis.fetch,
} = {}) {
	const root = new URL(base.replace(/\/?$/, '/'), globalThis.location?.href);
	const subs = new Map(); // channel -> { cursor: resume after it, last: delivered, link: where it is acknowledged, … }
	const waiting = new Set(); // publications until there is a link
	const worked = new Set();
	const listeners = {};
	const timers = {};
	const gone = new AbortController();
	let link, probe, newest; // the connection; a better one on trial; the newest id of this connection
	let [index, turn, tries, fails, refs] = [0, 0, 0, 0, 0];

	const later = (name, ms, then) => {
		clearTimeout(timers[name]);
		timers[name] = setTimeout(then, ms);
	};
	const call = (handlers, ...args) => handlers?.forEach((handler) => {
		try { handler(...args); } catch (error) { setTimeout(() => { throw error; }); }
	});
	const emit = (event, ...args) => call(listeners[event], ...args);
	const url = (path, query = []) => `${new URL(path, root)}?${new URLSearchParams([...Object.entries(params), ...query])}`;
	// Later, so that several subscribe() make one request.
	const changed = () => later('changed', 0, () => [link, probe].forEach((each) => each?.sync()));
	const retry = (ms) => later('retry', ms, () => { link = connect(kinds[index]); });
	const listen = (event, then) => globalThis.addEventListener?.(event, then, { signal: gone.signal });
	// On a lesser transport, tries a better one: soon when it worked before, else now and then.
	const better = (soon) => {
		const kind = kinds[turn++ % index];
		const ms = soon && worked.has(kind) ? 2000 : upgrade;
		if (kind) later('better', ms * (0.5 + Math.random()), () => { probe = connect(kind); });
	};
	const connect = (kind) => {
		const me = { kind };
		me.expect = (ms, late = () => me.end(4009, 'silent')) => {
			clearTimeout(me.timer);
			if (!me.over) Object.assign(me, { late, timer: setTimeout(late, ms) });
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
	const set = (state, transport, connection) => Object.assign(this, { state, transport, connection });
	const down = (me, code, reason, error) => {
		if (me === probe) return better((probe = undefined));
		link = undefined;
		if (me.opened) {
			if (code === 1000) return this.close(code, reason); // rt_close() in PHP
			if (Date.now() - me.opened > 5000) fails = 0;
			set('connecting');
			emit('close', { code, reason, transport: me.kind, reconnects: true });
		} else {
			emit('error', error?.code ? error : fault('unreachable', `${me.kind}: ${reason || 'no connection'}`));
			if (!worked.has(me.kind) || ++tries > 2) {
				index = (index + 1) % kinds.length;
				tries = 0;
				if (index) return retry(0);
			}
		}
		retry(Math.min(maxDelay, minDelay * 2 ** fails++) * (0.5 + Math.random() / 2));
	};

	// Every transport speaks the frames of /ws from here on.
	const welcome = (me, { connection, key, ping = 25 }) => {
		const first = !me.opened; // else a stream was reopened for other channels
		const other = this.transport !== me.kind;
		Object.assign(me, { key, connection, ping: ping * 1000, opened: me.opened ?? Date.now() });
		if (me === probe) link?.end(), clearTimeout(timers.retry), [link, probe] = [me];
		newest = undefined;
		subs.forEach((sub) => { sub.link = undefined; });
		set('open', me.kind, connection);
		waiting.forEach((send) => send());
		if (!first) return;
		[index, tries] = [kinds.indexOf(me.kind), 0];
		worked.add(me.kind);
		if (me.kind === 'ws') me.sync();
		if (other) emit('transport', me.kind);
		emit('open', { transport: me.kind, connection });
		better(true);
	};
	// The server sends in the order of ids once it has caught up: then no channel misses anything up to `id`.
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
		const { type, channel, id, oldest, recovered } = frame;
		const sub = subs.get(channel);
		if (type === 'welcome') welcome(me, frame);
		else if (type === 'pong') settle(newest);
		else if (type === 'error' || (type === 'unsubscribed' && sub?.link)) refuse(fault(frame.code ?? type, frame.message, channel));
		else if (type === 'subscribed' && sub) {
			sub.link = me;
			if (!(age(newest, id) > 0)) newest = id;
			if (!sub.cursor) sub.cursor = sub.last = id;
			else if (recovered === false && !(age(oldest, sub.last) <= 0)) emit('gap', { channel, since: sub.cursor, oldest });
			sub.done();
		} else if (type === 'message' && sub) {
			const [own] = place(id);
			if (own ? age(id, sub.last) <= 0 : sub.seen.includes(id)) return;
			if (own) sub.last = id;
			else sub.seen = [id, ...sub.seen].slice(0, 99);
			sub.cursor = id;
			if (age(id, newest) > 0) settle(id);
			call(sub.handlers, content(frame), frame);
		} else if (type === 'message') emit('message', content(frame), frame);
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
			if (me.over) return;
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
			if (response.ok) return response;
			const { error: { code = 'http', message = `HTTP ${response.status}`, channel } = {} } = await response.json().catch(() => ({}));
			throw fault(code, message, channel);
		};
		const poll = async (query, chosen, { signal }) => {
			if (me.key) query.push(['connection', me.connection], ['key', me.key]);
			const body = await (await get('poll', query)).json();
			if (signal.aborted) return;
			if (body.key) welcome(me, body);
			if (me.key) for (const [channel] of chosen) receive(me, { ...body, type: 'subscribed', channel, id: body.cursor });
			for (const frame of body.messages) receive(me, frame);
			for (const [, sub] of chosen) sub.last ??= body.cursor, sub.cursor = body.cursor;
		};
		// Not by an EventSource: that hides heartbeats, so that a dead connection looks like a silent one.
		const stream = async (query, _, { signal }) => {
			const reader = (await get('sse', query)).body.getReader();
			const decoder = new TextDecoder();
			for (let text = '', part; !(part = await reader.read()).done;) {
				const blocks = (text + decoder.decode(part.value, { stream: true })).split('\n\n');
				text = blocks.pop();
				for (const block of blocks) {
					const data = block.split('\n').map((line) => (/^data:/.test(line) ? line.slice(5) : '')).join('');
					if (signal.aborted) return;
					if (data || block === ':') receive(me, data ? JSON.parse(data) : { type: 'pong' });
				}
				if (me.opened) me.expect(2.5 * me.ping);
			}
			me.end(1006, 'the stream ended');
		};
		me.close = () => stop?.abort();
		me.leave = () => {};
		me.publish = async (body) => content(await (await get('publish', [], {
			method: 'POST', signal: undefined, headers: { 'Content-Type': 'application/json' },
			body: JSON.stringify({ ...body, connection: me.connection, key: me.key }),
		})).json());
		me.sync = async () => {
			me.close();
			me.key = undefined;
			const { signal } = (stop = new AbortController());
			while (!signal.aborted) {
				// A poll for new channels finds where they stand, and the first one opens the session: at once, both.
				const fresh = [...subs].filter(([, sub]) => me.kind === 'poll' && !sub.cursor);
				const chosen = fresh.length ? fresh : [...subs];
				const ids = chosen.map(([, sub]) => sub.cursor).filter(Boolean);
				const wait = me.key ? 25 : 0;
				const query = [
					...chosen.map(([channel]) => ['channel', channel]), ['since', ids.filter((id) => place(id)[0]).sort(age)[0] ?? ids[0] ?? ''],
					['meta', 1], ['session', fresh.length ? 0 : 1], ['timeout', wait],
				];
				me.expect(wait * 1000 + timeout);
				try {
					await (me.kind === 'poll' ? poll : stream)(query, chosen, { signal });
				} catch (error) {
					if (signal.aborted) return;
					if (chosen.length === 1 && /forbidden|_channel/.test(error.code)) error.channel ??= chosen[0][0];
					if (error.code === 'no_session') me.key = undefined;
					else if (!error.channel || !refuse(error)) me.end(1006, error.message, error);
				}
			}
		};
		me.sync();
	};

	Object.assign(set('connecting'), {
		subscribe(channel, handler, { since } = {}) {
			const sub = subs.get(channel) ?? { handlers: new Set(), seen: [], cursor: since, last: since };
			if (!sub.ready) {
				sub.ready = new Promise((done, fail) => Object.assign(sub, { done, fail }));
				sub.ready.catch(() => {}); // who does not ask hears of it by "error"
				changed(subs.set(channel, sub));
				if (!/^[\w=@,.;:/-]{1,200}$/.test(channel)) refuse(fault('bad_channel', 'not a channel name', channel));
			}
			const entry = handler.bind(); // the same function may come twice
			sub.handlers.add(entry);
			return Object.assign(() => {
				sub.handlers.delete(entry);
				if (sub.handlers.size || subs.get(channel) !== sub) return;
				if (sub.link) sub.link.leave(channel);
				changed(subs.delete(channel));
			}, { ready: sub.ready });
		},
		publish: (channel, data, { event, timeout = 30000 } = {}) => new Promise((done, fail) => {
			const timer = setTimeout(() => send(fault('timeout')), timeout);
			const send = (error) => {
				if (!error && !link?.key) return waiting.add(send);
				waiting.delete(send);
				(error ? Promise.reject(error) : link.publish({ channel, event, data })).then(done, fail).then(() => clearTimeout(timer));
			};
			send(this.state === 'closed' ? fault('closed') : waiting.size > 99 && fault('busy'));
		}),
		on(event, handler) {
			(listeners[event] ??= new Set()).add(handler);
			return () => listeners[event].delete(handler);
		},
		close(code = 1000, reason = '') {
			const { transport } = this;
			gone.abort();
			Object.values(timers).forEach(clearTimeout);
			probe?.end();
			link?.end();
			set('closed');
			waiting.forEach((send) => send(fault('closed')));
			if (transport) emit('close', { code, reason, transport, reconnects: false });
		},
	});
	listen('online', () => (link ? link.late() : retry(0)));
	listen('offline', () => clearTimeout(timers.retry));
	retry(0);
}
