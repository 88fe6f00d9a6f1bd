// The clients that everybody has (npm's ws and eventsource, plain HTTP) against the examples of php/examples.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { Program, Wire, sleep, until } from './support.mjs';

const programs = {};
before(async () => {
  for (const name of ['chat', 'feed', 'longpoll', 'monitor']) {
    const args = name === 'feed' ? ['0.05'] : [];
    // A reader that waits for `retry` first, and for its turn, is away for more prices than are kept by default.
    const settings = name === 'feed' ? { 'realtime.history_size': 1000 } : {};
    programs[name] = await new Program(`php/examples/${name}.php`, settings, args).start();
  }
});
after(() => Promise.all(Object.values(programs).map((program) => program.end())));

/** Until the server has answered the handshake, and a ping: only then it has subscribed whoever is on /raw. */
async function open(socket) {
  await new Promise((done, fail) => socket.once('open', done).once('error', fail));
  await new Promise((done) => { socket.once('pong', done).ping(); });
}

/** A WebSocket that keeps what it gets: text as a string, binary as a Buffer. */
async function websocket(url, protocol) {
  const socket = new WebSocket(url.replace('http', 'ws'), protocol);
  socket.got = [];
  socket.on('message', (data, binary) => socket.got.push(binary ? data : data.toString()));
  socket.closed = new Promise((done) => socket.once('close', (code, reason) => done([code, reason.toString()])));
  await open(socket);
  return socket;
}

test('chat.php: Ratchet\'s chat over /raw, text and binary, with all four handlers', async () => {
  const { chat } = programs;
  const [a, b, c] = await Promise.all([1, 2, 3].map(() => websocket(`${chat.url}raw/chat`)));
  a.send('hello');
  await until(() => b.got.length && c.got.length, 'the message at both others');
  b.send(Buffer.from([0, 1, 255]));
  await until(() => a.got.length && c.got.length === 2, 'the binary message');
  assert.deepEqual(a.got, [Buffer.from([0, 1, 255])]);
  assert.deepEqual(b.got, ['hello']);
  assert.deepEqual(c.got, ['hello', Buffer.from([0, 1, 255])]);
  await chat.broadcast('chat', 'from cron');
  await chat.broadcast('chat', { as: 'JSON' });
  await until(() => a.got.length === 3, 'what another process broadcast');
  assert.deepEqual(a.got.slice(1), ['from cron', '{"as":"JSON"}']);

  c.send('/fail'); // the handler throws, and on_error closes the connection
  assert.deepEqual(await c.closed, [4000, 'error']);
  a.close(1000);
  await a.closed;
  const output = () => chat.output().stdout;
  await until(() => output().split('has disconnected').length === 3, 'both ends', 30000, chat.output);
  assert.equal(output().split('New connection!').length, 4);
  assert.match(output(), /An error has occurred: as you wish/);
  assert.match(output(), /has disconnected \(1000\)/);
  b.close();
});

test('/ws: the native protocol, frame by frame', async () => {
  const { longpoll } = programs;
  const ws = await websocket(`${longpoll.url}ws`, 'realtime.v1');
  assert.equal(ws.protocol, 'realtime.v1');
  const frame = async (n) => JSON.parse(await until(() => ws.got[n], `frame ${n}`, 30000, () => ws.got));
  const send = (value) => ws.send(typeof value === 'string' ? value : JSON.stringify(value));
  const welcome = await frame(0);
  assert.equal(welcome.type, 'welcome');
  assert.match(welcome.connection, /^[\da-f]{32}$/);
  send({ type: 'subscribe', channel: 'news', ref: 'a' });
  const subscribed = await frame(1);
  assert.deepEqual({ ...subscribed, id: '' }, { type: 'subscribed', channel: 'news', ref: 'a', id: '' });
  send({ type: 'publish', channel: 'news', data: { text: 'ü' }, ref: 7 });
  const [message, reply] = [await frame(2), await frame(3)].sort((x, y) => x.type.localeCompare(y.type));
  assert.deepEqual(message, { type: 'message', channel: 'news', event: 'message', id: message.id, data: { text: 'ü' } });
  assert.deepEqual(reply, { type: 'reply', ref: 7, data: { id: message.id } });
  send('{"type":');
  assert.equal((await frame(4)).code, 'bad_json');
  send({ type: 'dance', ref: 8 });
  const unknown = await frame(5);
  assert.deepEqual([unknown.type, unknown.code, unknown.ref], ['error', 'unknown_type', 8]);
  send({ type: 'unsubscribe', channel: 'news', ref: 9 });
  assert.deepEqual(await frame(6), { type: 'unsubscribed', channel: 'news', ref: 9 });
  send({ type: 'subscribe', channel: 'news', since: subscribed.id });
  assert.equal((await frame(7)).recovered, true);
  assert.equal((await frame(8)).id, message.id);
  send({ type: 'ping', ref: 10 });
  assert.deepEqual(await frame(9), { type: 'pong', ref: 10 });
  ws.close(1000);
  assert.equal((await ws.closed)[0], 1000);
});

test('ws agrees on compression by itself, and reads what is compressed', async () => {
  const { chat } = programs;
  const plain = new WebSocket(`${chat.url.replace('http', 'ws')}raw/chat`, { perMessageDeflate: false });
  await open(plain);
  assert.equal(plain.extensions, '');
  const packed = await websocket(`${chat.url}raw/chat`);
  assert.equal(packed.extensions, 'permessage-deflate');
  let bytes = 0; // what came over the wire
  packed._socket.on('data', (chunk) => { bytes += chunk.length; });
  plain.got = [];
  plain.on('message', (data) => plain.got.push(data.toString()));
  const orders = Array.from({ length: 200 }, (_, i) => ({ id: 41000 + i, status: i % 3 ? 'paid' : 'open', name: 'Zoë' }));
  await chat.broadcast('chat', orders);
  await until(() => packed.got.length && plain.got.length, 'the broadcast at both');
  assert.deepEqual(JSON.parse(packed.got[0]), orders);
  assert.equal(packed.got[0], plain.got[0]);
  assert.ok(bytes > 0 && bytes < packed.got[0].length / 4, `${bytes} of ${packed.got[0].length} bytes`);
  await chat.broadcast('chat', 'small'); // not compressed, on the same connection
  await until(() => packed.got.length === 2 && plain.got.length === 2, 'the small one at both');
  assert.equal(packed.got[1], 'small');
  // From 1 KiB on ws compresses what it sends.
  const text = JSON.stringify(orders);
  plain.got.length = 0;
  packed.send(text);
  await until(() => plain.got.length, 'what was sent compressed');
  assert.equal(plain.got[0], text);
  for (const socket of [plain, packed]) socket.close(1000);
});

test('feed.php: an EventSource, which resumes by Last-Event-ID after a cut', async () => {
  const { feed } = programs;
  const wire = await new Wire(feed.port).open();
  const source = new EventSource(`${wire.url}sse?channel=prices`);
  const ids = [];
  source.addEventListener('price', (event) => {
    assert.equal(JSON.parse(event.data).symbol, 'ACME');
    ids.push(event.lastEventId);
  });
  try {
    await until(() => ids.length > 5, 'prices');
    const before = ids.length;
    wire.cut();
    await sleep(100);
    await until(() => ids.length > before + 50, 'prices after the cut', 30000, () => ids.length); // it waits `retry` first
    const numbers = ids.map((id) => Number(id.split('-')[1]));
    assert.deepEqual(numbers, numbers.map((_, i) => numbers[0] + i), 'one after the other, none missing, none double');
  } finally {
    source.close();
    await wire.close();
  }
});

test('longpoll.php: plain HTTP, with a cursor from poll to poll', async () => {
  const { url } = programs.longpoll;
  const poll = async (query) => (await fetch(`${url}poll?channel=news&${query}`)).json();
  const publish = async (data) => (await fetch(`${url}publish`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ channel: 'news', data }),
  })).json();

  const first = await poll('timeout=0');
  assert.deepEqual(first.messages, []);
  const waiting = poll(`since=${first.cursor}&timeout=10`);
  await sleep(100);
  const { data } = await publish('one');
  const second = await waiting;
  assert.deepEqual(second.messages.map((message) => [message.id, message.data]), [[data.id, 'one']]);
  await publish('two'); // between two polls
  await publish('three');
  const third = await poll(`since=${second.cursor}&timeout=10`);
  assert.deepEqual(third.messages.map((message) => message.data), ['two', 'three']);
  assert.equal(third.recovered, true);
  const started = Date.now();
  const fourth = await poll(`since=${third.cursor}&timeout=1`);
  assert.deepEqual(fourth.messages, []);
  assert.ok(Date.now() - started >= 950, 'it waits as long as it is asked to');
  assert.equal((await fetch(`${url}poll?channel=a%20b`)).status, 400);
  assert.equal((await fetch(`${url}publish`, { method: 'POST', body: '{"channel":"news","data":1}' })).status, 415);
});

test('monitor.php: points over /stream, several a second', async () => {
  const { url } = programs.monitor;
  const stop = new AbortController();
  const response = await fetch(`${url}stream?channel=monitor`, { signal: stop.signal });
  assert.match(response.headers.get('content-type'), /^application\/x-ndjson/);
  const times = [];
  let text = '';
  try {
    for await (const chunk of response.body) {
      const lines = (text + Buffer.from(chunk)).split('\n');
      text = lines.pop();
      for (const line of lines.filter(Boolean).map((line) => JSON.parse(line))) {
        if (line.type !== 'message') continue;
        assert.equal(line.data.load.length, 3);
        assert.equal(line.data.clients, 1);
        times.push(line.data.time);
      }
      if (times.length > 4) break;
    }
  } finally {
    stop.abort();
  }
  // A span alone may be longer, and the next one shorter, where a process has to wait for its turn.
  const spans = times.slice(1).map((time, i) => time - times[i]).sort((a, b) => a - b);
  assert.ok(spans[2] > 0.1 && spans[1] < 1, `${spans}`);
});
