/* realtime.js, the client of the PHP extension "realtime" (MIT). How it works: realtime.d.ts. */
const fault = (code, text = code, channel) => Object.assign(Error(text), { code, channel });
const content = ({ data = null, encoding }) => (encoding ? Uint8Array.from(atob(data), (c) => c.charCodeAt(0)) : data);
// Positions are epoch-number; NaN when they do not compare.
const age = (a, b) => {
	const [[era, n], [other, m]] = [a, b].map((id) => `${id}`.split('-'));
	return era === other ? n - m : NaN;
};

export function Realtime(base = '/', {
	transports: kinds = ['ws', 'sse', 'poll'], timeout = 8000, minDelay = 500, maxDelay = 30000, upgrade = 60000,
	token, WebSocket = globalThis.WebSocket, fetch = globalThis.fetch,
} = {}) {
	const root = `${new URL(base.replace(/\/?$/, '/'), globalThis.location?.href)}`;
	const subs = new Map(); // channel -> { cursor: all up to it is done, link: where it stands, … }
	const waiting = new Set(); // publications
	const listeners = {};
	const timers = {};
	let link, probe, newest; // the connection; a better one on trial; the newest position
	let [index, turn, fails, refs] = [0, 0, 0, 0];

	const later = (name, ms, then) => {
		clearTimeout(timers[name]);
		timers[name] = setTimeout(then, ms);
	};
	const call = (handlers, ...args) => handlers?.forEach((handler) => queueMicrotask(() => handler(...args)));
	const emit = (event, info) => call(listeners[event], info);
	const changed = () => later('changed', 0, () => [link, probe].forEach((each) => each?.sync?.()));
	const retry = (ms) => later('retry', ms, () => { link = connect(kinds[index]); });
	const better = () => {
		const kind = kinds[turn++ % index];
		if (kind) later('better', upgrade * (0.5 + Math.random()), () => { probe = connect(kind); });
	};
	const connect = (kind) => {
		const me = { kind };
		me.expect = (ms, late = () => me.end(4009, 'silent')) => {
			clearTimeout(me.timer);
			if (!me.over) me.timer = setTimeout(late, ms);
		};
		me.end = (code, reason, error = 'unreachable') => {
			if (me.over) return;
			me.over = true;
			me.expect();
			me.close?.();
			if (!code) return; // replaced, or close()
			if (me === probe) return better((probe = null));
			link = null;
			if (me.opened) {
				if (code === 1000) return this.close(code, reason); // rt_close()
				if (Date.now() - me.opened > 5000) fails = 0;
				lost('connecting', code, reason);
			} else {
				emit('error', fault(error, `${me.kind}: ${reason || 'no connection'}`));
				index = (index + 1) % kinds.length;
				if (index) return retry(0);
			}
			retry(Math.min(maxDelay, minDelay * 2 ** (fails++ || -3 * (code === 1012))) * (0.5 + Math.random() / 2));
		};
		me.expect(timeout);
		me.renew = async (use) => {
			const jwt = token?.bind ? await token() : token && (await ask(token)).token;
			if (!me.over) await use(jwt);
		};
		me.renew((jwt) => (kind === 'ws' ? socket : http)(me, jwt)).catch(({ message, code }) => me.end(1006, message, code));
		return me;
	};
	const ask = async (url, init) => {
		const response = await fetch(url, init);
		if (response.ok) return init?.stream ? response.body.pipeThrough(new TextDecoderStream()).getReader() : response.json();
		const { error } = await response.json().catch(() => ({}));
		throw Object.assign(fault('http', `HTTP ${response.status}`), error);
	};
	const lost = (state, code, reason) => {
		const { transport } = this;
		Object.assign(this, { state, transport: null, connection: null });
		if (transport) emit('close', { code, reason, transport, reconnects: state !== 'closed' });
	};

	// Positions ascend over all channels: none misses anything up to this one, unless its past may still be to come.
	const settle = (position = newest, all) => {
		newest = position;
		subs.forEach((sub) => {
			if (sub.link && age(position, sub.cursor) > 0 && (all || age(position, sub.begun) > 0)) sub.cursor = position;
		});
	};
	const refuse = (error, sub) => {
		if (sub) sub.fail(error, subs.delete(error.channel));
		emit('error', error);
	};
	// Somebody has come to a presence channel, or left it.
	const tell = (members, type, { channel, user, info }) => {
		const known = members.get(user);
		if (!known === (type === 'leave')) return;
		if (known) members.delete(user);
		else members.set(user, { user, info });
		emit(type, { channel, user, info: info ?? known?.info });
	};
	const receive = (me, frame) => me.over || heard[frame.type]?.(frame, subs.get(frame.channel), me);
	const heard = {
		token: ({ expires }, _, me) => {
			if (expires >= 0) later('token', Math.min(expires * 800, 2e9), () => me.renew(me.renewed).catch(refuse));
		},
		welcome: ({ connection, key, ping, expires }, _, me) => {
			const { kind: transport, opened } = me;
			Object.assign(me, { proof: { connection, key }, ping: ping * 1000, opened: opened ?? Date.now() });
			if (me === probe) link?.end(), clearTimeout(timers.retry), [link, probe] = [me];
			newest = null;
			subs.forEach((sub) => { sub.link = null; });
			Object.assign(this, { state: 'open', transport, connection });
			waiting.forEach((send) => send());
			heard.token({ expires }, _, me);
			if (opened) return; // reopened for other channels
			index = kinds.indexOf(transport);
			emit('open', { transport, connection });
			better();
		},
		subscribed: ({ channel, id, recovered, oldest, cached, members }, sub = {}, me) => {
			newest ??= id; // a later one may be ahead
			Object.assign(sub, { link: me, begun: id });
			if (!sub.cursor) Object.assign(sub, cached ? { cached: id } : { cached, cursor: id });
			else if (recovered === false && !(age(oldest, sub.cursor) <= 0)) emit('gap', { channel, since: sub.cursor, oldest });
			const now = members && new Map(members.map((one) => [one.user, one]));
			const was = now && (sub.members ??= now);
			was?.forEach((one, user) => now.has(user) || tell(was, 'leave', { channel, user }));
			now?.forEach((one) => tell(was, 'join', { channel, ...one }));
			sub.done?.();
		},
		message: (frame, sub) => {
			const { type, id, cursor = id } = frame;
			if (sub) {
				if (sub.cached) [sub.cursor, sub.cached] = [sub.cached];
				else if (!sub.cursor || age(cursor, sub.cursor) <= 0) return;
				else sub.cursor = cursor;
			}
			if (age(cursor, newest) > 0) settle(cursor);
			if (type !== 'message') return sub?.members && tell(sub.members, type, frame);
			call(sub?.handlers ?? listeners.message, content(frame), frame);
		},
		pong: ({ cursor, behind }) => behind || settle(cursor, true),
		error: ({ code, message, channel }, sub) => refuse(fault(code, message, channel), !sub?.link && sub),
		unsubscribed: ({ type, channel }, sub) => sub?.link && refuse(fault(type, type, channel), sub),
	};
	heard.join = heard.leave = heard.message;

	const socket = async (me, jwt) => {
		const ws = new WebSocket(`${root}ws`.replace('http', 'ws'), jwt ? ['realtime.v1', `realtime.token.${jwt}`] : 'realtime.v1');
		const answers = new Map();
		const send = (frame) => ws.send(JSON.stringify(frame));
		me.close = () => {
			ws.close();
			answers.forEach(([, fail]) => fail(fault('lost')));
		};
		ws.onopen = me.sync = () => ws.readyState === 1 && subs.forEach((sub, channel) => {
			if (sub.asked !== me) send({ type: 'subscribe', channel, since: sub.cursor }, (sub.asked = me));
		});
		me.renewed = (fresh) => send({ type: 'token', token: fresh });
		me.leave = (channel) => send({ type: 'unsubscribe', channel });
		me.publish = (body) => new Promise((...both) => {
			answers.set(++refs, both);
			send({ type: 'publish', ref: refs, ...body });
		});
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

	const http = async (me, jwt) => {
		let stop;
		const poll = (body, chosen) => {
			if (body.key) receive(me, { ...body, type: 'welcome' });
			// A long past comes in parts before the session begins: new channels wait for that.
			for (const [channel, sub] of chosen) {
				const [members, cached] = [body.members?.[channel], body.cached?.includes(channel)];
				if (sub.cursor || me.proof) receive(me, { ...body, type: 'subscribed', channel, id: body.cursor, cached, members });
			}
			for (const frame of [...body.messages, { ...body, type: 'pong' }]) receive(me, frame);
		};
		const stream = async (reader) => {
			for (let text = '', part; !(part = await reader.read()).done;) {
				const lines = (text + part.value).split('\n');
				text = lines.pop();
				for (const line of lines) {
					if (line.startsWith('data:')) receive(me, JSON.parse(line.slice(5)));
					else if (line === ':') receive(me, { type: 'pong' });
				}
				if (me.opened) me.expect(2.5 * me.ping);
			}
			me.end(1006, 'the stream ended');
		};
		me.close = () => stop?.abort();
		me.publish = async (body) => content(await ask(`${root}publish`, {
			method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ ...body, ...me.proof }),
		}));
		const kind = me.kind === 'poll' ? poll : stream;
		me.renewed = (fresh) => me.sync(jwt = fresh);
		me.sync = async () => {
			me.close();
			me.proof = null;
			const { signal } = (stop = new AbortController());
			const chosen = [...subs];
			while (!signal.aborted) {
				const since = chosen.map(([, sub]) => sub.cursor).sort(age)[0] ?? newest ?? '';
				const wait = me.proof ? 25 : 0;
				const query = new URLSearchParams({ since, meta: 1, session: 1, timeout: wait, ...me.proof });
				chosen.forEach(([channel, sub]) => query.append(sub.cursor ? 'channel' : 'new', channel));
				me.expect(wait * 1000 + timeout);
				try {
					const headers = jwt ? { Authorization: `Bearer ${jwt}` } : {};
					const answer = await ask(`${root + me.kind}?${query}`, { signal, headers, stream: kind !== poll });
					await kind(answer, chosen);
				} catch (error) {
					if (signal.aborted) return;
					const sub = subs.get(error.channel);
					if (sub) return refuse(error, sub), me.sync();
					if (error.code === 'no_session') me.proof = null;
					else me.end(1006, error.message, error.code);
				}
			}
		};
		me.sync();
	};

	this.subscribe = (channel, handler, { since } = {}) => {
		const sub = subs.get(channel) ?? { handlers: new Set(), cursor: since };
		sub.handlers.add(handler);
		sub.ready ??= new Promise((done, fail) => {
			changed(subs.set(channel, Object.assign(sub, { done, fail })));
		});
		sub.ready.catch(() => {}); // the event "error" tells it, too
		return Object.assign(() => {
			sub.handlers.delete(handler);
			if (sub.handlers.size || subs.get(channel) !== sub) return;
			sub.link?.leave?.(channel);
			changed(subs.delete(channel));
		}, { ready: sub.ready });
	};
	this.presence = (channel) => [...subs.get(channel)?.members?.values() ?? []];
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
	this.close = (code = 1000, reason = '') => {
		lost('closed', code, reason);
		Object.values(timers).forEach(clearTimeout);
		[link, probe].forEach((each) => each?.end());
		waiting.forEach((send) => send('closed'));
	};
	this.state = 'connecting';
	retry(0);
}
