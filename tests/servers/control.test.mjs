// What can come over the control socket and is no good: garbage, half frames, other versions, other users. None of it may
// harm those who push at the same time.

import assert from 'node:assert/strict';
import { chmodSync, readFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after, before, beforeEach, afterEach, test as run } from 'node:test';
import { root, sleep, until } from '../browser/support.mjs';
import { Client } from './client.mjs';
import { account, isRoot } from './lab.mjs';
import { descriptors } from './proc.mjs';
import { site } from './servers.mjs';

const VERSION = Number(/^pub const VERSION: u32 = (\d+);/m.exec(readFileSync(path.join(root, 'src/wire/control.rs'), 'utf8'))[1]);
const test = (name, body, options) => run(name, { timeout: 120000, ...options }, body);

let lab;
let hub;
let client;
let pushing;
let stop;

before(async () => {
  lab = await site({ fpm: { pool: { pm: 'static', 'pm.max_children': 4 } } });
  await lab.push('control', 'first');
  hub = await lab.hub();
});
after(() => lab?.end());

// While each test runs, a page pushes all the time.
beforeEach(async () => {
  client = await Client.open(lab.hubUrl, { channels: ['control'] });
  stop = false;
  pushing = (async () => {
    let n = 0;
    // So many at least, however quick the test is.
    for (; !stop || n < 4; n++) await lab.push('control', n);
    return n;
  })();
});
afterEach(async () => {
  stop = true;
  const n = await pushing;
  assert.deepEqual(await client.messages('control', n), Array.from({ length: n }, (_, i) => i), 'nobody else is harmed');
  assert.deepEqual(lab.hubs().map(({ pid }) => pid), [hub.pid], 'the same server');
  client.close();
});

/** A frame: its length, then its content. */
function frame(content) {
  const bytes = Buffer.from(content);
  const head = Buffer.alloc(4);
  head.writeUInt32LE(bytes.length);
  return Buffer.concat([head, bytes]);
}
const hello = (more = {}) => frame(JSON.stringify({ protocol: 'realtime', version: VERSION, ...more }));

/** Connects, sends, and returns what came back, at least the greeting if there is to be one, and whether the server hung up within `ms`. */
async function talk(parts, ms = 20000, greeted = false) {
  const socket = net.connect(lab.socket);
  const got = [];
  let over = false;
  socket.on('data', (bytes) => got.push(bytes)).on('close', () => { over = true; }).on('error', () => {});
  for (const part of [parts].flat()) {
    socket.write(part);
    await sleep(20);
  }
  const whole = () => Buffer.concat(got);
  if (greeted) await until(() => whole().length > 4 && whole().length >= 4 + whole().readUInt32LE(), 'a greeting');
  for (const end = Date.now() + ms; !over && Date.now() < end;) await sleep(10);
  socket.destroy();
  const bytes = whole();
  const greeting = bytes.length > 4 ? JSON.parse(bytes.subarray(4, 4 + bytes.readUInt32LE())) : undefined;
  return { over, greeting, bytes };
}

test('bytes that are no frame', async () => {
  for (const garbage of ['GET / HTTP/1.1\r\nHost: x\r\n\r\n', '\xff'.repeat(10000), '{"protocol":"realtime"}\n', '\0'.repeat(64)]) {
    const { over, greeting } = await talk(Buffer.from(garbage, 'latin1'));
    assert.ok(over, `hung up on ${JSON.stringify(garbage.slice(0, 30))}`);
    assert.equal(greeting?.identity?.secret || '', '', 'and tells no secret');
  }
});

test('a frame that says it is 4 GiB', async () => {
  const { over } = await talk([Buffer.from([255, 255, 255, 255]), 'x']);
  assert.ok(over);
  const { over: afterHello } = await talk([hello(), Buffer.from([255, 255, 255, 127]), 'x']);
  assert.ok(afterHello);
});

test('half a frame, and then nothing, or the end', async () => {
  const whole = hello();
  for (const length of [1, 3, 4, 10, whole.length - 1]) await talk(whole.subarray(0, length), 100);
  const silent = Array.from({ length: 50 }, () => net.connect(lab.socket).on('error', () => {}));
  for (const socket of silent) socket.write(whole.subarray(0, 10));
  await sleep(300);
  assert.equal((await lab.stats()).pid, hub.pid, 'fifty that never finish their hello do not keep others out');
  for (const socket of silent) socket.destroy();
});

test('a peer that dies in the middle of a publication publishes nothing', async () => {
  const before = (await lab.stats()).received;
  for (const length of [5, 40]) await talk([hello(), frame(Buffer.alloc(60, 1)).subarray(0, length)], 200);
  assert.equal((await lab.stats()).received, before);
});

test('a good hello, then nonsense', async () => {
  for (const bytes of [Buffer.alloc(40, 0xff), Buffer.alloc(0), Buffer.from('rt_broadcast')]) {
    const { greeting } = await talk([hello(), frame(bytes)], 1500, true);
    assert.equal(greeting.refused, null);
    assert.equal(greeting.pid, hub.pid);
  }
});

test('another version is told so, in words, and no secret', async () => {
  for (const version of [VERSION + 1, VERSION - 1, 0, 4294967295]) {
    const { greeting, over } = await talk(hello({ version }));
    assert.ok(over, `version ${version}`);
    assert.match(greeting.refused, /version/);
    assert.equal(greeting.version, VERSION);
    assert.equal(greeting.identity.secret, '');
  }
  const { over, greeting } = await talk(hello({ protocol: 'something' }));
  assert.ok(over);
  assert.notEqual(greeting?.refused, null);
});

test('fields that this version does not know, and worker words that make no sense', async () => {
  assert.equal((await talk(hello({ colour: 'green' }), 0, true)).greeting.refused, null);
  for (const worker of [{ master: 0, generation: 0, fingerprint: '' }, { master: 4294967295, generation: 1, fingerprint: 'x' }]) {
    await talk(hello({ worker }), 200);
  }
  assert.ok((await talk(hello({ worker: 'me' }))).over);
  // A new server that says no more than that it is one, and goes: the old one serves on.
  await talk(hello({ purpose: { Takeover: 99999 } }), 100);
});

test('another user is refused by who he is, not only by the file\'s mode', async () => {
  chmodSync(lab.socket, 0o666);
  try {
    const { code, stderr } = await lab.run(['-r', 'rt_broadcast("control", "intruder");'], { as: account('nobody') });
    assert.notEqual(code, 0);
    assert.match(stderr, /Realtime\\Exception: .*(this server belongs to user|belongs to another user)/);
  } finally {
    chmodSync(lab.socket, 0o600);
  }
}, { skip: !isRoot && 'needs root' });

test('a thousand connections one after the other leave no descriptor', async () => {
  const before = descriptors(hub.pid).length;
  for (let i = 0; i < 1000; i++) {
    await new Promise((done) => {
      const socket = net.connect(lab.socket, () => { socket.write(i % 2 ? hello() : 'x'); socket.destroy(); });
      socket.once('close', done).on('error', done);
    });
  }
  await until(() => descriptors(hub.pid).length <= before + 2, 'as few descriptors as before', 30000, () => [before, descriptors(hub.pid).length]);
});
