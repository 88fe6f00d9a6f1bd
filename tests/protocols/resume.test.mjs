// A pusher-js client that was away gets what it missed, once and in order, with php/client/pusher-resume.js.

import assert from 'node:assert/strict';
import { after, afterEach, before, test as run } from 'node:test';
import { resume } from '../../php/client/pusher-resume.js';
import { authorizer, client, collect, Pusher, server, sleep, until, Wire } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const gaps = [];
resume(Pusher, { onGap: (channel) => gaps.push(channel) });

let program;
let wire;
const open = [];

before(async () => {
  program = await server({ 'realtime.history_size': 50 });
  wire = await new Wire(program.port).open();
});
after(async () => {
  await wire.close();
  await program.end();
});
afterEach(() => {
  for (const pusher of open.splice(0)) pusher.disconnect();
  wire.release();
  gaps.length = 0;
});

function join(options) {
  const pusher = client(wire, options);
  open.push(pusher);
  return pusher;
}

const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

/** Cuts the wire, has something done meanwhile, and waits until the client is back. Held: refused, it waits for a quarter of a minute. */
async function away(pusher, meanwhile) {
  wire.holding = true;
  wire.cut();
  await until(() => pusher.connection.state !== 'connected', 'the loss');
  await meanwhile();
  wire.release();
  await until(() => pusher.connection.state === 'connected', 'the return', 30000);
}

test('what was missed comes once and in order, over two channels and several losses', async () => {
  const pusher = join({ channelAuthorization: authorizer(program) });
  const [a, b] = [await collect(pusher, 'a'), await collect(pusher, 'private-b')];
  await program.numbers('a', 1, 3);
  await until(() => a.length === 3, 'the first messages');
  for (const round of [1, 2]) {
    await away(pusher, async () => {
      await program.numbers('a', 1 + 3 * round, 3);
      await program.numbers('private-b', 1 + 3 * (round - 1), 3);
    });
    await until(() => a.length === 3 + 3 * round && b.length === 3 * round, 'what was missed', 30000, () => [a.length, b.length]);
  }
  await program.numbers('a', 10, 1);
  await until(() => a.length === 10, 'what comes live');
  await sleep(100);
  assert.deepEqual([a.map((it) => it.data), b.map((it) => it.data)], [numbers(1, 10), numbers(1, 6)]);
  assert.deepEqual(gaps, []);
});

test('a channel that history no longer reaches back to is named', async () => {
  const pusher = join();
  const got = await collect(pusher, 'gap');
  await away(pusher, () => program.numbers('gap', 1, 80));
  await until(() => got.length === 50, 'what is left', 30000, () => got.length);
  assert.deepEqual(got.map((it) => it.data), numbers(31, 80));
  assert.deepEqual(gaps, ['gap']);
});

test('what was unsubscribed does not come again, and a new page begins with what comes', async () => {
  const pusher = join();
  await collect(pusher, 'left');
  pusher.unsubscribe('left');
  await program.broadcast('left', 1);
  await away(pusher, () => program.broadcast('left', 2));
  const got = await collect(pusher, 'left');
  await program.broadcast('left', 3);
  await until(() => got.length === 1, 'what comes');
  await sleep(100);
  assert.deepEqual(got.map((it) => it.data), [3]);
});

test('nor does what is unsubscribed while away', async () => {
  const pusher = join();
  const before = await collect(pusher, 'gone');
  await program.broadcast('gone', 0);
  await until(() => before.length === 1, 'what comes first');
  await away(pusher, async () => {
    pusher.unsubscribe('gone');
    await program.broadcast('gone', 1);
  });
  const got = await collect(pusher, 'gone');
  await program.broadcast('gone', 2);
  await until(() => got.length === 1, 'what comes');
  await sleep(100);
  assert.deepEqual(got.map((it) => it.data), [2]);
});
