// A server that is there and does not answer: pages get an exception in time and go on, and all is well when it answers again.

import assert from 'node:assert/strict';
import { afterEach } from 'node:test';
import { sleep, until } from '../browser/support.mjs';
import { Client } from './client.mjs';
import { range, testsOf } from './lab.mjs';
import { signal, stop } from './proc.mjs';
import { site } from './servers.mjs';

let lab;

const test = testsOf(() => lab);
afterEach(async () => {
  // Nobody ends while it is stopped.
  for (const { pid } of lab?.hubs() ?? []) signal(pid, 'SIGCONT');
  await lab?.end();
  lab = undefined;
});

const push = (number) => lab.get(`/push.php?channel=stop&data=${number}`);

async function begin(pool) {
  lab = await site({ lab: { settings: { timeout: '4' } }, fpm: { pool } });
  await lab.push('stop', -1);
  const hub = await lab.hub();
  return { hub, client: await Client.open(`http://127.0.0.1:${lab.port}`, { channels: ['stop'] }) };
}

/** Pushes until it answers; returns the number that was taken. Another one each time: what is refused may come all the same. */
const again = (number) => until(async () => (await push(number++)).status === 200 && number - 1, 'an answer again', 30000, () => lab.allLogs());

/** What pages were told when it did not answer. */
function inTime(answers) {
  for (const { status, json } of answers) {
    assert.equal(status, 500);
    assert.match(json.error, /did not answer within realtime\.timeout/);
    assert.ok(json.pid > 0, 'the request goes on behind the exception');
    assert.ok(json.ms > 3500 && json.ms < 9000, `rt_broadcast() took ${json.ms} ms of 4000`);
  }
}

/** All that a page is told was published has come, and nothing has twice. */
async function well({ hub, client }, accepted) {
  for (const number of accepted) await until(() => client.data('stop').includes(number), `${number}`, 30000, () => client.data('stop'));
  await sleep(100);
  const got = client.data('stop');
  assert.equal(new Set(got).size, got.length, `each once: ${got}`);
  assert.equal(client.over, undefined);
  assert.deepEqual(lab.hubs().map(({ pid }) => pid), [hub.pid], 'the same server');
  assert.deepEqual(await lab.noZombies(), undefined);
}

test('workers that are linked to it', async () => {
  const all = await begin({ pm: 'static', 'pm.max_children': 3 });
  await Promise.all(range(12).map((number) => lab.push('stop', number)));
  await stop(all.hub.pid);
  inTime(await Promise.all(range(6).map((number) => push(100 + number))));
  // A page that has nothing to say to it, in a worker whose link has gone, waits for less.
  for (let i = 0; i < 6; i++) {
    const started = Date.now();
    assert.equal((await lab.get('/do.php?what=pid')).status, 200);
    assert.ok(Date.now() - started < 3500, `a page took ${Date.now() - started} ms`);
  }
  signal(all.hub.pid, 'SIGCONT');
  const taken = await again(10000);
  for (const number of range(12)) await lab.push('stop', 300 + number);
  await well(all, [...range(12), taken, ...range(12).map((number) => 300 + number)]);
});

test('workers that have just begun, and more of them than its queue takes', async () => {
  const all = await begin({ pm: 'static', 'pm.max_children': 8, 'pm.max_requests': 1 });
  await stop(all.hub.pid);
  for (let round = 0; round < 3; round++) inTime(await Promise.all(range(8).map((number) => push(100 * round + number))));
  signal(all.hub.pid, 'SIGCONT');
  const taken = await again(10000);
  for (const number of range(12)) await lab.push('stop', 2000 + number);
  await well(all, [taken, ...range(12).map((number) => 2000 + number)]);
});

test('a script on the command line', async () => {
  const all = await begin({ pm: 'static', 'pm.max_children': 1 });
  await stop(all.hub.pid);
  const started = Date.now();
  const said = await lab.php('try { rt_broadcast("stop", 1); } catch (Realtime\\Exception $e) { echo $e->getMessage(); } echo "\nand on";');
  assert.match(said, /did not answer within realtime\.timeout\nand on$/);
  assert.ok(Date.now() - started < 10000);
  signal(all.hub.pid, 'SIGCONT');
  await lab.php('rt_broadcast("stop", 2);');
  await well(all, [2]);
});
