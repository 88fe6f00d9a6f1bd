/**
 * The client of the PHP extension "realtime": `import { Realtime } from '/realtime.js'`.
 *
 *     const rt = new Realtime('/');
 *     const off = rt.subscribe('orders', (order, message) => …);
 *     const reply = await rt.publish('chat', { text: 'hello' });   // PHP's rt_on_message() answers
 *
 * It connects at once: by WebSocket, else by Server-Sent Events, else by long polling. A transport that does not open is
 * passed over for the next one, and tried again later. A lost connection comes back by itself: all transports are tried
 * in turn, after 250 ms first and then ever longer; every channel resumes after the newest message it has, and none is
 * delivered twice.
 *
 * How it works: every transport is turned into the frames of /ws (php/docs/protocol.md). Each channel has a cursor, the
 * position of the newest message that was delivered (its `cursor`, or else its `id`): what is not after it is a double, and
 * from it the channel resumes. Once a channel has caught up, positions arrive in order over all channels, so that the cursor of
 * a quiet channel moves on with the others and does not grow old. A connection on which nothing is heard (a WebSocket is
 * asked first) for about two and a half times the server's ping interval is given up.
 * A token travels as a sub-protocol of the WebSocket, else as a header; never in a URL, which logs would keep. A fresh one
 * is sent over an open WebSocket; the others begin anew with it, from where they stand.
 * Server-Sent Events are read by fetch(): an EventSource hides heartbeats, the reason of a refusal, and events whose names
 * it was not told.
 *
 * Needs fetch() (browsers since 2020, Node 18), TextDecoderStream for Server-Sent Events (browsers since 2022, else it
 * polls), and WebSocket (browsers, Node 22; else give `options.WebSocket`).
 */

export type Transport = 'ws' | 'sse' | 'poll';

export interface Options {
	/** Which transports to use, best first. Default: all of them, `['ws', 'sse', 'poll']`. */
	transports?: Transport[];
	/** How long a transport may take to open, in ms. Default: 8000. */
	timeout?: number;
	/** The first wait before reconnecting, in ms; it doubles with every failure, and each is cut by up to half at random.
	 *  After close code 1012 (another server has taken over) the first wait is an eighth of it. Default: 500. */
	minDelay?: number;
	/** The longest wait before reconnecting, in ms. Default: 30000. */
	maxDelay?: number;
	/** About how often a better transport is tried while a lesser one is in use, in ms. Default: 60000. */
	upgrade?: number;
	/** Where the token comes from (PHP's rt_token()), if there is one: a URL that answers `{"token":"…"}`, or a function that
	 *  returns it or a promise of it; nothing is nobody. Asked for each connection, and when four fifths of a token's time
	 *  are over. When it fails, so does the connection that needed it, and is tried again. */
	token?: string | (() => string | null | undefined | Promise<string | null | undefined>);
	/** A WebSocket class where there is no global one (npm's `ws`). */
	WebSocket?: new (url: string, protocols: string | string[]) => any;
	/** In place of the global fetch(), for example to send cookies to another origin:
	 *  `(url, init) => fetch(url, { ...init, credentials: 'include' })`. */
	fetch?: (url: string, init?: any) => Promise<any>;
}

/** A message as it travelled. */
export interface Message<T = any> {
	/** Absent when PHP sent it to this connection alone, with rt_send(). */
	channel?: string;
	/** "message" unless PHP named it otherwise. */
	event: string;
	/** Its id, of the server's or the publisher's own. Absent when it was sent to this connection alone. */
	id?: string;
	/** Its position, when `id` is the publisher's own. */
	cursor?: string;
	/** The data as it travelled; a binary payload is base64 here and a Uint8Array as a handler's first argument. */
	data: T;
	encoding?: 'base64';
}

/** A user on a presence channel. */
export interface Member<I = any> {
	/** The `sub` of its token, or what rt_on_subscribe() has said. */
	user: string;
	/** What others may know of it: `info` of the same. */
	info?: I;
}

export type Handler<T = any> = (data: T, message: Message<T>) => void;

/** Call it to unsubscribe this handler. */
export interface Subscription {
	(): void;
	/** Settles when the server has answered: rejects when it refuses the channel. Need not be looked at. */
	readonly ready: Promise<void>;
}

/** An error with the server's code (see the protocol's page) or one of the client's own: "unreachable" (a transport did
 *  not open), "unsubscribed" (PHP ended the subscription), "lost" (the connection ended before the reply came), "timeout",
 *  "busy" (100 publications wait for a connection already), "closed". */
export interface RealtimeError extends Error {
	code: string;
	channel?: string;
}

export interface Events {
	/** Connected, also again. `connection` is the id that PHP sees. */
	open: (info: { transport: Transport; connection: string }) => void;
	/** Disconnected. `reconnects` is false after close(), here or by rt_close() in PHP. */
	close: (info: { code: number; reason: string; transport: Transport; reconnects: boolean }) => void;
	/** Something was refused or failed. What can be tried again is being tried again. */
	error: (error: RealtimeError) => void;
	/** The server's history no longer reached back to `since`: messages of this channel were missed. `oldest` is the
	 *  oldest that is left. Load the state anew. */
	gap: (gap: { channel: string; since: string; oldest?: string }) => void;
	/** A user has come to a presence channel, or is found there after a reconnect; once, however many tabs it has. Not for those
	 *  who are there when the subscription begins, nor for this connection's own coming: see presence(). */
	join: (member: Member & { channel: string }) => void;
	/** A user has left a presence channel, or did not come back in time. */
	leave: (member: Member & { channel: string }) => void;
	/** A message for this connection alone (rt_send()), or of a channel that PHP subscribed it to (rt_subscribe()). */
	message: Handler;
}

export class Realtime {
	/** @param base The server's address, also relative to the page and with a path: "/", "/realtime/", "https://…". */
	constructor(base?: string, options?: Options);

	readonly state: 'connecting' | 'open' | 'closed';
	/** The transport in use, while open. */
	readonly transport?: Transport;
	/** The connection's id, while open: what rt_broadcast() takes as `except`. It changes when the connection does. */
	readonly connection?: string;

	/**
	 * Calls `handler` for every message of `channel` from now on, or from after `since` on, a message's `cursor ?? id`. Several handlers share
	 * one subscription, and `since` counts for the first of them. As with addEventListener(), the same function counts once.
	 */
	subscribe<T = any>(channel: string, handler: Handler<T>, options?: { since?: string }): Subscription;

	/**
	 * Who is on a presence channel to which this client is subscribed, itself among them; nobody before `ready`. The events
	 * `join` and `leave` tell what changes; while the connection is lost it is as it was then.
	 */
	presence<I = any>(channel: string): Member<I>[];

	/**
	 * Sends `data` to PHP's rt_on_message() and resolves to what the handler returned (null for nothing). Waits for a
	 * connection if there is none. Never sends twice: when the connection is lost before the reply came, it rejects.
	 */
	publish<R = any>(channel: string, data: unknown, options?: { event?: string; timeout?: number }): Promise<R>;

	/** Listens to an event. Returns what ends that. */
	on<E extends keyof Events>(event: E, handler: Events[E]): () => void;

	/** Ends the connection, for good. */
	close(code?: number, reason?: string): void;
}
