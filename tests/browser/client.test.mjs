// Our client (php/client/realtime.js) in node, against the real server over a wire that can be cut.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, describe, test as run } from 'node:test';
import WebSocket from 'ws';
import { Realtime } from '../../php/client/realtime.js';
import { Program, Wire, sleep, until } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const KINDS = ['ws', 'sse', 'poll'];
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

let server;
let wire;
const open = [];

/** A client over the wire that notes what happens to it. */
function client(options = {}) {
  const rt = new Realtime(options.base ?? wire.url, { WebSocket, minDelay: 50, maxDelay: 400, ...options });
  rt.log = [];
  for (const event of ['open', 'close', 'error', 'gap']) {
    rt.on(event, (info) => rt.log.push({ event, ...info, code: info.code }));
  }
  rt.times = (event) => rt.log.filter((entry) => entry.event === event).length;
  open.push(rt);
  return rt;
}

/** Cuts the wire until the client has noticed: between two polls there is nothing that it could notice. */
async function cut(rt) {
  const closes = rt.times('close');
  await until(() => rt.times('close') > closes || void wire.cut(), 'a close', 30000, () => rt.log);
}

/** Subscribes and collects the data. */
async function collect(rt, channel, options) {
  const got = [];
  const subscription = rt.subscribe(channel, (data) => got.push(data), options);
  await subscription.ready;
  return Object.assign(got, { off: subscription });
}

const all = (got, expected) => until(() => got.length >= expected.length, `${expected.length} messages`, 30000, () => got)
  .then(() => sleep(60)) // for one too many to show
  .then(() => assert.deepEqual([...got], expected));

before(async () => {
  server = await new Program('tests/browser/server.php', { 'realtime.ping_interval': 3, 'realtime.history_size': 200 }).start();
});
after(() => server.end());
afterEach(async () => {
  assert.equal(server.output().stderr, '', 'the server has nothing to complain about');
  for (const rt of open.splice(0)) rt.close();
  await wire?.close();
  wire = undefined;
});
const wired = async () => { wire = await new Wire(server.port).open(); };

for (const kind of KINDS) {
  describe(kind, () => {
    const only = (options) => client({ transports: [kind], ...options });

    test('receives what another process broadcasts, and publishes to PHP', async () => {
      await wired();
      const rt = only();
      const got = await collect(rt, `${kind}.a`);
      assert.equal(rt.transport, kind);
      assert.match(await server.broadcast(`${kind}.a`, { text: 'é "quoted"\n', n: 1.5, list: [null, true] }), /^[\da-f]{8}-\d+$/);
      await all(got, [{ text: 'é "quoted"\n', n: 1.5, list: [null, true] }]);
      const reply = await rt.publish('x', [1, 'two'], { event: 'echo' });
      assert.deepEqual(reply.data, [1, 'two']);
      assert.equal(reply.connection, rt.connection, 'PHP knows which connection it comes from');
      assert.equal(await rt.publish('x', 1, { event: 'nothing' }), null);
      await assert.rejects(rt.publish('x', 1, { event: 'fail' }), { code: 'handler_failed' });
    });

    test('gets what is for it alone, also binary, and not what excepts it', async () => {
      await wired();
      const rt = only();
      const direct = [];
      rt.on('message', (data, { event }) => direct.push([event, data]));
      const got = await collect(rt, `${kind}.b`);
      const other = await collect(only(), `${kind}.b`);
      assert.equal(await rt.publish('x', { for: 'you' }, { event: 'send' }), true);
      await until(() => direct.length, 'a direct message');
      assert.deepEqual(direct, [['direct', { for: 'you' }]]);
      await rt.publish(`${kind}.b`, 'to the others', { event: 'say' });
      await rt.publish(`${kind}.b`, null, { event: 'binary' });
      await all(other, ['to the others', Uint8Array.of(0, 255, 128)]);
      await all(got, [Uint8Array.of(0, 255, 128)]);
    });

    test('resumes after a cut: nothing lost, nothing double', async () => {
      await wired();
      const rt = only();
      const [a, b] = [await collect(rt, `${kind}.c`), await collect(rt, `${kind}.d`)];
      await server.numbers(`${kind}.c`, 1, 3);
      await all(a, [1, 2, 3]);
      for (const round of [0, 1]) {
        wire.down = true;
        wire.cut();
        await until(() => rt.state === 'connecting', 'a close', 30000, () => rt.log);
        await server.numbers(`${kind}.c`, 4 + round * 10, 10);
        await server.numbers(`${kind}.d`, round, 1);
        wire.down = false;
        await until(() => rt.state === 'open', 'an open connection');
      }
      await server.numbers(`${kind}.c`, 24, 2);
      await all(a, range(1, 25));
      await all(b, [0, 1]);
      assert.equal(rt.times('gap'), 0, JSON.stringify(rt.log));
    });

    test('resumes while messages keep coming, through many cuts', async () => {
      await wired();
      const rt = only();
      const [a, b] = [await collect(rt, `${kind}.busy1`), await collect(rt, `${kind}.busy2`)];
      const publishing = server.php(`for ($i = 0; $i < 400; $i++) {
        rt_broadcast('${kind}.busy' . (1 + $i % 2), $i); usleep(4000); }`);
      for (let i = 0; i < 6; i++) {
        await sleep(250);
        // One that is away has nothing to lose.
        await until(() => rt.state === 'open', 'an open connection', 30000, () => rt.log);
        wire.cut();
      }
      await publishing;
      await all(a, range(0, 199).map((i) => 2 * i));
      await all(b, range(0, 199).map((i) => 2 * i + 1));
      assert.ok(rt.times('close') >= 3, JSON.stringify(rt.log));
      assert.equal(rt.times('gap'), 0);
    });

    test('adds and drops channels under load without losing or doubling', async () => {
      await wired();
      const rt = only();
      const got = await collect(rt, `${kind}.steady`);
      // For as long as it takes, and not faster than a client that is busy can follow.
      const stop = path.join(server.home, `${kind}.stop`);
      const publishing = server.php(`for ($i = 0; !file_exists('${stop}'); $i++, clearstatcache()) {
        rt_broadcast(['${kind}.steady', '${kind}.extra'], $i); usleep(25000); } echo $i;`);
      const extras = [];
      await until(() => got.length > 6, 'the first messages'); // PHP may take its time to start
      for (let i = 0; i < 5; i++) {
        await sleep(100);
        const extra = await collect(rt, `${kind}.extra`);
        await until(() => extra.length > 4, 'messages of a channel added later');
        extra.off();
        extras.push([...extra]);
      }
      writeFileSync(stop, '');
      await all(got, range(0, Number(await publishing) - 1));
      for (const extra of extras) {
        assert.deepEqual(extra, range(extra[0], extra[0] + extra.length - 1));
      }
      assert.ok(extras[0][0] > 5, 'a new subscription does not get old messages');
    });

    test('says so when the history does not reach back', async () => {
      await wired();
      const rt = only();
      const got = await collect(rt, `${kind}.gap`);
      await server.numbers(`${kind}.gap`, 0, 1);
      await all(got, [0]);
      wire.down = true;
      wire.cut();
      await server.numbers(`${kind}.gap`, 1, 210); // 200 are kept
      wire.down = false;
      await all(got, [0, ...range(11, 210)]);
      const gap = rt.log.find((entry) => entry.event === 'gap');
      assert.equal(gap?.channel, `${kind}.gap`, JSON.stringify(rt.log));
      // And not again when nothing more was missed.
      await cut(rt);
      await until(() => rt.state === 'open', 'a third connection', 30000, () => rt.log);
      await server.numbers(`${kind}.gap`, 211, 1);
      await until(() => got.at(-1) === 211, 'the next message');
      assert.equal(rt.times('gap'), 1, JSON.stringify(rt.log));
    });

    test("a publisher's own ids resume and do not double", async () => {
      await wired();
      const rt = only();
      const [a, b] = [await collect(rt, `${kind}.own`), await collect(rt, `${kind}.own2`)];
      const own = (n, channel = 'own') => server.php(`rt_broadcast('${kind}.${channel}', ${n}, id: '${kind}-order-${n}');`);
      await own(1);
      await own(1);
      await all(a, [1]);
      wire.down = true;
      wire.cut();
      await own(2);
      await own(7, 'own2');
      await server.numbers(`${kind}.own`, 3, 1);
      wire.down = false;
      await all(a, [1, 2, 3]);
      await all(b, [7]);
      await collect(rt, `${kind}.later`); // reopens a stream
      await own(4);
      await all(a, [1, 2, 3, 4]);
      await all(b, [7]);
    });

    test('starts after a given id', async () => {
      await wired();
      const first = await server.broadcast(`${kind}.since`, 'before');
      await server.broadcast(`${kind}.since`, 'after');
      const rt = only();
      await all(await collect(rt, `${kind}.since`, { since: first }), ['after']);
    });

    test('hears that a channel is refused, and keeps the others', async () => {
      await wired();
      const rt = only();
      const got = await collect(rt, `${kind}.open`);
      await assert.rejects(rt.subscribe('private-x', () => {}).ready, { code: 'forbidden', channel: 'private-x' });
      for (const channel of ['no good', '', 'x'.repeat(201), 'é']) {
        await assert.rejects(rt.subscribe(channel, () => {}).ready, { code: 'bad_channel', channel });
      }
      await server.broadcast(`${kind}.open`, 1);
      await all(got, [1]);
      assert.equal(rt.times('error'), 5, JSON.stringify(rt.log));
      assert.equal(rt.times('close'), 0);
    });

    test('hears that a channel is no longer allowed when it reconnects', async () => {
      await wired();
      const rt = only();
      const [got, other] = [await collect(rt, `${kind}.kept`), await collect(rt, `${kind}.revoked`)];
      assert.equal(await rt.publish(`${kind}.revoked`, null, { event: 'revoke' }), true);
      await cut(rt);
      await until(() => rt.log.some(({ code }) => code === 'forbidden'), 'the word of it', 30000, () => rt.log);
      await until(() => rt.times('open') === 2, 'a second connection', 30000, () => rt.log);
      await server.broadcast(`${kind}.revoked`, 'no');
      await server.broadcast(`${kind}.kept`, 'yes');
      await all(got, ['yes']);
      assert.deepEqual([...other], []);
      assert.equal(rt.log.filter(({ code }) => code === 'forbidden').length, 1);
    });

    test('finds out that a connection is dead', async () => {
      await wired();
      const rt = only({ timeout: 1500 });
      const got = await collect(rt, `${kind}.dead`);
      wire.frozen = true;
      if (kind === 'poll') await cut(rt); // else the test would wait for the 25 s of a poll
      await until(() => rt.times('close'), 'a close', 30000, () => rt.log);
      await server.broadcast(`${kind}.dead`, 'while it was dead');
      wire.frozen = false;
      await all(got, ['while it was dead']);
    });

    test('reconnects after the server is restarted, and resumes by the new history', async () => {
      const own = await new Program('tests/browser/server.php').startAgainLater();
      try {
        const rt = only({ base: own.url });
        const got = await collect(rt, 'r');
        await own.broadcast('r', 1);
        await all(got, [1]);
        await own.stop();
        await until(() => rt.times('close'), 'a close');
        await sleep(300);
        await own.start();
        await own.broadcast('r', 2); // before or after it is back: it gets it
        await all(got, [1, 2]);
        assert.deepEqual((await rt.publish('r', 3, { event: 'echo' })).data, 3);
      } finally {
        await own.end();
      }
    });
  });
}

test('the client is small, and the same as it is served', async () => {
  const served = await (await fetch(`${server.url}realtime.js`)).text();
  // Presence and cache channels are 1000 of them.
  assert.ok(served.length < 10700, `${served.length} bytes`);
  const { Realtime: Served } = await import(`data:text/javascript,${encodeURIComponent(served)}`);
  const rt = new Served(server.url, { WebSocket });
  open.push(rt);
  const got = await collect(rt, 'served');
  await server.broadcast('served', 1);
  await all(got, [1]);
});

test('goes on where a WebSocket cannot even be made', async () => {
  await wired();
  const rt = client({ WebSocket: class { constructor() { throw new TypeError('not here'); } } });
  await collect(rt, 'blocked');
  assert.equal(rt.transport, 'sse');
});

test('a lost connection fails what was sent and sends what was not', async () => {
  await wired();
  const rt = client({ transports: ['ws'] });
  await until(() => rt.state === 'open', 'a connection');
  const slow = rt.publish('x', 1, { event: 'slow' });
  await sleep(50);
  wire.down = true;
  wire.cut();
  await assert.rejects(slow, { code: 'lost' });
  const waiting = rt.publish('x', 'later', { event: 'echo' });
  await assert.rejects(rt.publish('x', 'never', { timeout: 100 }), { code: 'timeout' });
  wire.down = false;
  assert.equal((await waiting).data, 'later');
});

test('falls back where a proxy stops WebSockets, then where it keeps streams back; and upgrades again', async () => {
  await wired();
  wire.block = (head) => /upgrade: websocket/i.test(head) || (/^GET \/sse/.test(head) && 'hang');
  const rt = client({ upgrade: 400, timeout: 2000 });
  const got = await collect(rt, 'fallback');
  assert.equal(rt.transport, 'poll');
  await server.broadcast('fallback', 1);
  wire.block = () => false;
  const publishing = server.php("for ($i = 2; $i <= 150; $i++) { rt_broadcast('fallback', $i); usleep(8000); }");
  await until(() => rt.transport === 'ws', 'WebSocket again', 30000, () => rt.log);
  await publishing;
  await all(got, range(1, 150)); // the history has room for more, however long the client is away
});

test('a past that takes several polls, with a gap before it', async () => {
  const own = await new Program('tests/browser/server.php', { 'realtime.max_backlog': '1K', 'realtime.history_size': 50 }).start();
  wire = await new Wire(own.port).open();
  try {
    const rt = client({ transports: ['poll'] });
    const got = await collect(rt, 'long');
    await own.numbers('long', 0, 1);
    await all(got, [0]);
    wire.down = true;
    wire.cut();
    await own.numbers('long', 1, 60);
    wire.down = false;
    await all(got, [0, ...range(11, 60)]);
    await own.numbers('long', 61, 1);
    await all(got, [0, ...range(11, 61)]);
    assert.equal(rt.times('gap'), 1, JSON.stringify(rt.log));
  } finally {
    await own.end();
  }
});

test('works without any channel, over each transport', async () => {
  await wired();
  for (const kind of KINDS) {
    const rt = client({ transports: [kind] });
    const direct = [];
    rt.on('message', (data) => direct.push(data));
    assert.equal((await rt.publish('x', kind, { event: 'echo' })).data, kind);
    assert.equal(await rt.publish('x', 1, { event: 'send' }), true);
    assert.equal(await rt.publish('x', 2, { event: 'send' }), true);
    await all(direct, [1, 2]);
    // The first channel, and then none again.
    const got = await collect(rt, `${kind}.first`);
    await server.broadcast(`${kind}.first`, 'x');
    await all(got, ['x']);
    got.off();
    await until(async () => (await rt.publish('x', 3, { event: 'send' }).catch(() => {})) && direct.at(-1) === 3, 'a message', 30000);
    assert.equal(rt.times('close'), 0, JSON.stringify(rt.log));
  }
});

test('a base with a path', async () => {
  const seen = [];
  const fetch = (url, init) => {
    seen.push(url);
    return globalThis.fetch(url.replace('/some/path/', '/'), init);
  };
  await wired();
  const rt = client({ base: `${wire.url}some/path`, transports: ['sse'], fetch });
  await collect(rt, 'p');
  assert.equal(new URL(seen[0]).pathname, '/some/path/sse');
});

test('PHP closes it: 1000 for good, anything else reconnects', async () => {
  await wired();
  const rt = client({ transports: ['ws'] });
  await until(() => rt.state === 'open', 'a connection');
  rt.publish('x', { code: 4321 }, { event: 'close' }).catch(() => {});
  await until(() => rt.times('open') === 2, 'a second connection', 30000, () => rt.log);
  assert.equal(rt.log.find(({ event }) => event === 'close').code, 4321);
  rt.publish('x', { code: 1000 }, { event: 'close' }).catch(() => {});
  await until(() => rt.state === 'closed', 'the end', 30000, () => rt.log);
  await assert.rejects(rt.publish('x', 1), { code: 'closed' });
});

test('another server has taken over: reconnects at once, but not again and again', async () => {
  await wired();
  // The close frame of code 4321 arrives as one of 1012.
  wire.alter = (bytes) => Buffer.from(bytes.toString('latin1').replace('\x10\xe1as asked', '\x03\xf4as asked'), 'latin1');
  const rt = client({ transports: ['ws'], minDelay: 8000, maxDelay: 12000 });
  const got = await collect(rt, 'moved');
  // From the end of a connection to the next one's beginning, as the client sees it.
  const at = {};
  for (const event of ['close', 'open']) rt.on(event, () => { at[event] = Date.now(); });
  const moved = async (opened) => {
    rt.publish('x', { code: 4321 }, { event: 'close' }).catch(() => {});
    await until(() => rt.times('close') === opened, 'the end of the connection', 30000, () => rt.log);
    await server.numbers('moved', opened, 1);
    await until(() => rt.times('open') === opened + 1, 'the next connection', 30000, () => rt.log);
    return at.open - at.close;
  };
  const times = [await moved(1), await moved(2)];
  assert.deepEqual(rt.log.filter(({ event }) => event === 'close').map(({ code }) => code), [1012, 1012]);
  // An eighth of minDelay, of which a half at random; else it would be 4 seconds at least, and the next time 6.
  assert.ok(times[0] < 3900 && times[1] >= 5900, `${times}`);
  await all(got, [1, 2]);
  assert.equal(rt.times('gap'), 0);
});

test('PHP ends a subscription', async () => {
  await wired();
  const rt = client({ transports: ['ws'] });
  const got = await collect(rt, 'taken');
  assert.equal(await rt.publish('taken', null, { event: 'take' }), true);
  await until(() => rt.log.some(({ code }) => code === 'unsubscribed'), 'the word of it', 30000, () => rt.log);
  await server.broadcast('taken', 1);
  await sleep(100);
  assert.deepEqual([...got], []);
});

test('handlers: an exception in one does not harm the others, and each ends by itself', async () => {
  await wired();
  const thrown = [];
  const listeners = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException').on('uncaughtException', (error) => thrown.push(error.message));
  try {
    const rt = client();
    const got = [];
    const handler = (data) => got.push(data);
    rt.subscribe('h', () => { throw new Error('in a handler'); });
    const [one, two] = [rt.subscribe('h', handler), rt.subscribe('h', (data) => handler(data))];
    await two.ready;
    await server.broadcast('h', 1);
    await until(() => got.length === 2, 'both');
    one();
    await server.broadcast('h', 2);
    await until(() => got.length === 3, 'the other');
    two();
    await server.broadcast('h', 3);
    await until(() => thrown.length === 3, 'the last message');
    await sleep(60);
    assert.deepEqual(got, [1, 1, 2]);
    assert.equal(thrown.length, 3);
  } finally {
    process.removeAllListeners('uncaughtException');
    for (const listener of listeners) process.on('uncaughtException', listener);
  }
});

test('keeps nothing alive after close()', async () => {
  await wired();
  const rt = client();
  await collect(rt, 'x');
  await rt.publish('x', 1, { event: 'echo' });
  rt.close();
  await until(() => wire.connections === 0, 'no connection left', 30000);
  const timers = process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
  await sleep(20);
  assert.ok(timers <= 2, `timers are left: ${process.getActiveResourcesInfo()}`);
});

test('one that is lost waits longer each time, at random', async () => {
  await wired();
  wire.down = true;
  const times = [];
  const rt = client({ transports: ['poll'], fetch: () => { times.push(Date.now()); return Promise.reject(new TypeError('no')); }, minDelay: 40, maxDelay: 200 });
  // So many that a delay without an end would be of a quarter of a minute.
  await until(() => times.length > 10, 'eleven tries');
  rt.close();
  const waits = times.slice(1).map((time, i) => time - times[i]);
  waits.forEach((wait, i) => {
    const most = Math.min(200, 40 * 2 ** i);
    assert.ok(wait >= most / 2 - 2 && wait < most + 5000, `wait ${i} of ${waits}`);
  });
});

// The order is one of the server's (tests/server/resume.rs, what_overtakes_a_long_past), where the socket takes a long past slowly.
test('what overtakes a past does not take its place', async () => {
  const sockets = [];
  class Slow {
    constructor() {
      this.readyState = 1;
      sockets.push(this);
      setTimeout(() => this.onopen());
    }
    send() {}
    close() {}
    say(frame) {
      this.onmessage({ data: JSON.stringify(frame) });
    }
    message(channel, number) {
      this.say({ type: 'message', channel, event: 'message', id: `e-${number}`, data: number });
    }
  }
  const rt = client({ base: 'http://nobody.example/', WebSocket: Slow, transports: ['ws'] });
  const got = { a: [], b: [] };
  for (const channel of ['a', 'b']) rt.subscribe(channel, (data) => got[channel].push(data), { since: 'e-40' });
  await until(() => sockets[0], 'a connection');
  const [socket] = sockets;
  socket.say({ type: 'welcome', connection: 'c', key: 'k', ping: 25 });
  socket.say({ type: 'subscribed', channel: 'a', id: 'e-100', recovered: true });
  socket.message('a', 60);
  socket.say({ type: 'subscribed', channel: 'b', id: 'e-101', recovered: true });
  socket.say({ type: 'pong', behind: true });
  for (const [channel, number] of [['a', 61], ['a', 101], ['b', 41], ['b', 99]]) socket.message(channel, number);
  await sleep(20);
  assert.deepEqual(got, { a: [60, 61, 101], b: [41, 99] });
});
