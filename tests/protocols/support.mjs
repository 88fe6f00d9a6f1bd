// What the protocol tests share: a PHP server with an app, pusher-js clients of it, and the auth endpoint of its application.
//
// The servers themselves, and wires to them that can be cut, are those of the browser tests.

import { createRequire } from 'node:module';
import WebSocket from 'ws';
import { Program, sleep, until } from '../browser/support.mjs';

export { default as Echo } from 'laravel-echo';
export { Program, Wire, run, sleep, until } from '../browser/support.mjs';

const require = createRequire(import.meta.url);
export const Pusher = require('pusher-js');
export const PusherServer = require('pusher');

export const APP = { id: '4711', key: 'a-key', secret: 'a-secret-of-the-tests' };
export const MASTER_KEY = Buffer.alloc(32, 7).toString('base64');

/** A server for `APP`. */
export const server = (settings = {}) => new Program('tests/protocols/server.php', {
  'realtime.pusher_app': `"other:other-key:another-secret-of-the-tests, ${APP.id}:${APP.key}:${APP.secret}"`,
  'realtime.pusher_master_key': `"${MASTER_KEY}"`,
  'realtime.client_events': 1,
  ...settings,
}).start();

/** A pusher-js client; `program` also may be a wire. */
export function client(program, options = {}) {
  const { port } = new URL(program.url);
  const pusher = new Pusher(options.key ?? APP.key, {
    cluster: '', wsHost: '127.0.0.1', wsPort: Number(port), forceTLS: false, enabledTransports: ['ws'], ...options,
  });
  pusher.errors = [];
  pusher.connection.bind('error', (error) => pusher.errors.push(error.data ?? error.error?.data ?? error));
  return pusher;
}

/** A bare WebSocket: `got` has its frames, with their data decoded, and last how it was closed. */
export function bare(program, query = '?protocol=7', key = APP.key) {
  const socket = new WebSocket(`${program.url.replace('http', 'ws')}app/${key}${query}`);
  const got = [];
  socket.on('message', (text) => {
    const frame = JSON.parse(text);
    got.push({ ...frame, data: frame.data === undefined ? undefined : JSON.parse(frame.data) });
  });
  socket.on('close', (code, reason) => got.push({ closed: code, reason: String(reason) }));
  socket.on('error', () => {});
  const say = (event) => socket.send(typeof event === 'string' ? event : JSON.stringify(event));
  const next = (check, what) => until(() => got.find(check), what, 30000, () => got);
  const errors = () => got.filter((frame) => frame.event === 'pusher:error').map((frame) => frame.data);
  return { socket, got, say, next, errors, disconnect: () => socket.terminate() };
}

export const connected = (pusher) => until(() => pusher.connection.state === 'connected', 'a connection', 30000,
  () => ({ state: pusher.connection.state, errors: pusher.errors }));

/** Subscribes and collects what comes. */
export async function collect(pusher, name, events = ['message']) {
  const channel = pusher.subscribe(name);
  const got = [];
  for (const event of events) channel.bind(event, (data, more) => got.push({ event, data, ...more }));
  await until(() => channel.subscribed, `a subscription to ${name}`, 30000, () => pusher.errors);
  return Object.assign(got, { channel });
}

export const all = async (got, expected) => {
  await until(() => got.length >= expected, `${expected} messages`, 30000, () => [...got]);
  await sleep(80); // for one too many to show
};

/** What the auth endpoint of `APP` answers: what `code` says about `$user` decides who it is. */
export function authorizer(program, user = 'null') {
  return {
    customHandler: async ({ socketId, channelName }, done) => {
      try {
        done(null, await sign(program, socketId, channelName ?? '', user));
      } catch (error) {
        done(error, null);
      }
    },
  };
}

/** rt_pusher_auth() in a PHP process of its own, signed by `APP`, which is the second of the server's. */
export async function sign(program, socketId, channel, user = 'null') {
  const alone = Object.create(program, {
    settings: { value: { ...program.settings, 'realtime.pusher_app': `"${APP.id}:${APP.key}:${APP.secret}"` } },
  });
  const out = await alone.php(`echo json_encode(rt_pusher_auth('${socketId}', '${channel}', ${user}));`);
  return JSON.parse(out);
}
