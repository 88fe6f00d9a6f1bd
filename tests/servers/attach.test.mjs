// `php worker.php` beside a site on PHP-FPM: rt_run() attaches to the server that runs there, and several share the messages.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach } from 'node:test';
import { sleep, until } from '../browser/support.mjs';
import { Client } from './client.mjs';
import { range, testsOf } from './lab.mjs';
import { kill, signal } from './proc.mjs';
import { site } from './servers.mjs';

let lab;

const test = testsOf(() => lab);
afterEach(async () => {
  await lab?.end();
  lab = undefined;
});

async function begin(options = {}) {
  lab = await site({ fpm: { pool: { pm: 'static', 'pm.max_children': 3 } }, ...options });
  await lab.push('start', 1);
}
const open = (options) => Client.open(`http://127.0.0.1:${lab.port}`, options);

async function worker(name) {
  const child = lab.program('worker.php', name);
  await until(() => child.output().includes('ready') || child.over, `worker ${name}`, 30000, () => child.output());
  assert.ok(!child.over, child.output());
  return child;
}
/**
 * Waits until the server knows of all of these, which say that they are ready before that: a process has one message at a time, so that
 * of as many slow ones each gets its own.
 */
async function attached(...names) {
  const clients = await Promise.all(names.map(() => open()));
  const answers = () => Promise.all(clients.map((client) => client.publish('attached', 0.2, 'slow').then(({ by }) => by, (error) => error.code)));
  await until(async () => new Set((await answers()).filter((by) => names.includes(by))).size === names.length, `${names}`, 30000, notes);
  for (const client of clients) client.close();
}

/** What the workers have noted. */
const notes = () => {
  const file = path.join(lab.site, 'worker.txt');
  return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : [];
};

test('one worker: replies, subscriptions, state, broadcasts; SIGTERM ends it, and the server stays', async () => {
  await begin({ lab: { settings: { handshake_timeout: 6 } } });
  const hub = await lab.hub();
  const before = await open();
  await assert.rejects(before.publish('x', 1), { code: 'no_handler' });
  const one = await worker('one');
  await attached('one');
  assert.equal(lab.hubs().length, 1, 'it did not become a server');
  assert.deepEqual(await before.publish('x', [1]), { by: 'one', data: [1], sapi: 'cli' });
  await assert.rejects(before.subscribe('closed'), { code: 'forbidden' });
  const other = await open({ channels: ['room'] });
  assert.equal(await before.publish('room', 'hello', 'say'), null);
  assert.deepEqual(await other.messages('room', 1), ['hello']);
  assert.deepEqual([await before.publish('x', 0, 'count'), await before.publish('x', 0, 'count'), await other.publish('x', 0, 'count')], [1, 2, 1]);
  await assert.rejects(before.publish('x', 0, 'throw'), { code: 'handler_failed' });
  await until(() => /thrown by a worker/.test(one.output()), 'what it says of that', 30000, one.output);
  other.close();
  await until(() => notes().some((line) => line.includes(`${other.frames[0].connection} closed`)), 'the close handler', 30000, notes);
  signal(one.pid, 'SIGTERM');
  assert.equal(await one.ended, 0, one.output());
  assert.match(one.output(), /\d+ events/);
  // What comes now waits for a while for the next worker.
  await assert.rejects(before.publish('x', 1));
  assert.equal(before.over, undefined);
  assert.deepEqual(lab.hubs().map(({ pid }) => pid), [hub.pid]);
  before.close();
});

test('several workers share the messages, one connection\'s stay in order', async () => {
  await begin();
  await Promise.all(['one', 'two', 'three'].map(worker));
  await attached('one', 'two', 'three');
  const clients = await Promise.all(range(12).map(() => open()));
  for (const n of range(50)) for (const client of clients) client.send({ type: 'publish', channel: 'x', data: n, ref: n });
  for (const client of clients) await client.answer(49, 30000);
  const by = new Set();
  for (const client of clients) {
    const replies = client.frames.filter(({ type }) => type === 'reply');
    assert.deepEqual(replies.map(({ data }) => data.data), range(50));
    for (const { data } of replies) by.add(data.by);
    const id = client.frames[0].connection;
    assert.deepEqual(notes().filter((line) => line.includes(id)).map((line) => Number(line.split(' ')[2])), range(50));
    client.close();
  }
  assert.deepEqual([...by].sort(), ['one', 'three', 'two'], 'each had some');
});

test('one that is busy does not hold up the others', async () => {
  await begin();
  await Promise.all(['one', 'two'].map(worker));
  await attached('one', 'two');
  const [slow, quick] = [await open(), await open()];
  const file = path.join(lab.site, 'go');
  slow.send({ type: 'publish', channel: 'x', event: 'wait', data: file, ref: 1 });
  await until(() => existsSync(`${file}.begun`), 'the busy one');
  for (const n of range(10)) await quick.publish('x', n);
  assert.ok(!slow.frames.some(({ ref }) => ref === 1), 'they did not wait for it');
  lab.put('go', '');
  assert.equal((await slow.answer(1)).type, 'reply');
  for (const client of [slow, quick]) client.close();
});

test('a worker killed with an unacknowledged message: another one handles it, in order', async () => {
  await begin();
  const workers = await Promise.all(['one', 'two'].map(worker));
  await attached('one', 'two');
  const client = await open();
  client.send({ type: 'publish', channel: 'x', data: 'before', ref: 'before' });
  client.send({ type: 'publish', channel: 'x', event: 'die', data: 'deadly', ref: 'deadly' });
  for (const n of range(5)) client.send({ type: 'publish', channel: 'x', data: n, ref: n });
  await client.answer(4);
  const victim = notes().find((line) => line.includes('dies')).split(' ')[0];
  const deadly = client.frames.find(({ ref }) => ref === 'deadly');
  assert.equal(deadly.data?.data, 'deadly', JSON.stringify(deadly));
  assert.notEqual(deadly.data.by, victim);
  assert.deepEqual(client.frames.filter(({ ref }) => ref !== undefined).map(({ ref }) => ref), ['before', 'deadly', ...range(5)]);
  // The server may know of its end before its parent does.
  await until(() => workers.some((child) => child.over), 'the end of one');
  assert.equal(workers.filter((child) => child.over).length, 1);
  client.close();
});

test('the only worker killed: what waits is handled by the next one', async () => {
  await begin({ lab: { settings: { handshake_timeout: 60 } } });
  const one = await worker('one');
  await attached('one');
  const client = await open();
  await client.publish('x', 'warm');
  client.send({ type: 'publish', channel: 'x', event: 'slow', data: 5, ref: 'slow' });
  for (const n of range(5)) client.send({ type: 'publish', channel: 'x', data: n, ref: n });
  await sleep(200);
  await kill(one.pid);
  await worker('two');
  assert.deepEqual((await client.answer(4, 30000)).data, { by: 'two', data: 4, sapi: 'cli' });
  assert.deepEqual(client.frames.filter(({ ref }) => ref !== undefined && ref !== 'warm').map(({ ref }) => ref).slice(-6), ['slow', ...range(5)]);
  client.close();
});

test('the server killed: the worker attaches to the next one and never serves itself', async () => {
  await begin();
  const one = await worker('one');
  await attached('one');
  const hub = await lab.hub();
  await kill(hub.pid);
  await sleep(500);
  assert.deepEqual(lab.hubs(), []);
  assert.ok(!one.over, one.output());
  await until(async () => (await lab.get('/push.php?channel=start&data=2')).status === 200, 'a server', 30000);
  const client = await open();
  const reply = await until(() => client.publish('x', 'again').catch(() => undefined), 'an answer by the worker', 30000);
  assert.equal(reply.by, 'one');
  client.close();
});

test('with realtime.handler too: the workers have the word while there are any', async () => {
  await begin({ lab: { handler: true, settings: { handshake_timeout: 20 } } });
  const client = await open();
  assert.equal(await client.publish('x', 'by the pool'), 'by the pool');
  const one = await worker('one');
  // Until the server knows of it the pool has the word.
  await until(async () => (await client.publish('x', 'by whom?')).by === 'one', 'the worker');
  assert.equal((await client.publish('x', 'by a worker')).by, 'one');
  signal(one.pid, 'SIGTERM');
  await one.ended;
  assert.equal(await client.publish('x', 'by the pool again'), 'by the pool again');
  client.close();
});
