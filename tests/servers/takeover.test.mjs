// A reload with changed settings, or with a new build of the extension: the new server takes over from the old one. No
// connection attempt is refused; clients are asked to reconnect over some seconds and resume without a gap.

import assert from 'node:assert/strict';
import { copyFileSync, renameSync } from 'node:fs';
import net from 'node:net';
import { afterEach } from 'node:test';
import { sleep, until } from '../browser/support.mjs';
import { Client, library } from './client.mjs';
import { range, testsOf } from './lab.mjs';
import { alive, ends, signal, stop } from './proc.mjs';
import { site } from './servers.mjs';

let lab;

const test = testsOf(() => lab);
afterEach(async () => {
  await lab?.end();
  lab = undefined;
});

async function begin(settings = {}, options = {}) {
  lab = await site({ lab: { settings: { drain: 2, ...settings }, ...options.lab }, fpm: { pool: { pm: 'static', 'pm.max_children': 3 }, ...options.fpm } });
  await lab.push('take', -1);
  return lab.hub();
}
const hubAddress = () => `http://127.0.0.1:${lab.port}`;

/** Reloads, and asks a page, whose worker then brings a new server. Several workers may, and the fastest wins. */
async function reload(old) {
  await lab.fpm.reload();
  await lab.get('/do.php?what=pid');
  return until(() => lab.hubs().find(({ pid }) => pid !== old.pid && alive(pid)), 'a new server', 30000, () => lab.hubs());
}

/** Connects all the time; counts those that were refused. */
function knock() {
  const result = { tried: 0, refused: 0 };
  let stop = false;
  const done = (async () => {
    while (!stop) {
      result.tried++;
      await new Promise((next) => {
        const socket = net.connect(lab.port, '127.0.0.1', () => { socket.destroy(); next(); });
        socket.once('error', () => { result.refused++; next(); });
      });
      await sleep(1);
    }
  })();
  return { end: async () => { stop = true; await done; return result; } };
}

test('changed settings: nobody is refused, everybody is asked to reconnect over some seconds, and resumes', async () => {
  const old = await begin({ drain: 6 });
  const clients = range(30).map(() => {
    const rt = library(hubAddress());
    const got = [];
    return { rt, got, ready: rt.subscribe('take', (data) => got.push(data)).ready };
  });
  await Promise.all(clients.map(({ ready }) => ready));
  const bare = await Promise.all(range(20).map(() => Client.open(hubAddress(), { channels: ['take'] })));
  const codes = [];
  for (const client of bare) client.closed.then(({ code }) => codes.push({ code, at: Date.now() }));
  const door = knock();
  let n = 0;
  let stop = false;
  const pushing = (async () => { for (; !stop; n++) await lab.push('take', n); })();
  await sleep(300);
  lab.writeIni({ ping_interval: 20 });
  await reload(old);
  assert.ok(await ends(old.pid, 30000), 'the old one ends when its clients have gone');
  await sleep(500);
  stop = true;
  await pushing;
  const { tried, refused } = await door.end();
  assert.ok(tried > 50);
  assert.equal(refused, 0, `${refused} of ${tried} connection attempts were refused`);
  await lab.hub();
  assert.deepEqual(new Set(codes.map(({ code }) => code)), new Set([1012]));
  const closes = clients.flatMap(({ rt }) => rt.log.filter(({ event }) => event === 'close'));
  assert.equal(closes.length, clients.length, 'once each');
  const times = [...codes, ...closes].map(({ at }) => at).sort((a, b) => a - b);
  assert.ok(times.at(-1) - times[0] > 2000, `all were closed within ${times.at(-1) - times[0]} ms of 6 seconds`);
  for (const { rt, got } of clients) {
    await until(() => got.length >= n, `${n} messages`, 30000, () => [got.length, rt.log]);
    assert.deepEqual(got, range(n), 'nothing lost, nothing double, in order');
    assert.equal(rt.times('gap'), 0);
    rt.close();
  }
  assert.equal((await Client.open(hubAddress())).frames[0].ping, 20, 'the new settings are in force');
});

test('a new build of the extension', async () => {
  const old = await begin({ drain: 1 });
  const rt = library(hubAddress());
  const got = [];
  await rt.subscribe('take', (data) => got.push(data)).ready;
  await lab.push('take', 'by the old');
  // Put there as a package does: another file under the same name.
  copyFileSync(lab.extension, `${lab.extension}.new`);
  renameSync(`${lab.extension}.new`, lab.extension);
  await reload(old);
  await lab.push('take', 'by the new');
  await ends(old.pid, 30000);
  await until(() => got.length === 2, 'both messages', 30000, () => got);
  assert.deepEqual(got, ['by the old', 'by the new']);
  assert.equal(rt.times('gap'), 0);
  await lab.hub();
  rt.close();
});

test('a reload that changes nothing takes nothing over', async () => {
  const old = await begin();
  for (let i = 0; i < 3; i++) {
    await lab.fpm.reload();
    await lab.push('take', i);
  }
  await sleep(300);
  assert.deepEqual(lab.hubs().map(({ pid }) => pid), [old.pid]);
});

test('several takeovers in a row, and the last one ends with PHP-FPM', async () => {
  let hub = await begin({ drain: 0 });
  const rt = library(hubAddress());
  const got = [];
  await rt.subscribe('take', (data) => got.push(data)).ready;
  for (let i = 0; i < 4; i++) {
    await lab.push('take', i);
    lab.writeIni({ ping_interval: 10 + i });
    await reload(hub);
    assert.ok(await ends(hub.pid, 30000));
    hub = await lab.hub();
  }
  await lab.push('take', 4);
  await until(() => got.length === 5, 'five messages', 30000, () => [got, rt.log]);
  assert.deepEqual(got, range(5));
  assert.equal(rt.times('gap'), 0);
  rt.close();
  await lab.fpm.stop();
  assert.ok(await ends(hub.pid, 30000));
});

test('a changed realtime.listen: the new server listens there, clients of the old place are told', async () => {
  const old = await begin({ drain: 1 });
  const client = await Client.open(hubAddress(), { channels: ['take'] });
  lab.writeIni({ listen: `127.0.0.1:${lab.shopPort}` });
  await reload(old);
  assert.equal((await client.closed).code, 1012);
  const moved = await Client.open(`http://127.0.0.1:${lab.shopPort}`, { channels: ['take'] });
  await lab.push('take', 'here');
  assert.deepEqual(await moved.messages('take', 1), ['here']);
  assert.ok(await ends(old.pid, 30000));
  // Who still comes to the old place is let in for a while.
  await until(() => Client.open(hubAddress()).then((late) => late.close(), () => true), 'nobody at the old place', 30000);
  await lab.hub();
  moved.close();
});

test('changed settings while the server does not answer for a moment: a worker that found it only in its script brings the new one', async () => {
  const old = await begin({ drain: 0 }, { fpm: { pool: { pm: 'static', 'pm.max_children': 1 } } });
  lab.writeIni({ ping_interval: 22 });
  await lab.fpm.reload();
  await stop(old.pid);
  const pushing = lab.push('take', 1);
  await sleep(500);
  signal(old.pid, 'SIGCONT');
  await pushing;
  await lab.get('/do.php?what=pid');
  assert.ok(await ends(old.pid, 30000), 'the next page looks at which server it has');
  assert.equal((await Client.open(hubAddress())).frames[0].ping, 22);
});

test('a new server that cannot start leaves the old one as it was', async () => {
  const old = await begin({ drain: 1 });
  const taken = net.createServer();
  await new Promise((done) => taken.listen(lab.shopPort, '127.0.0.1', done));
  const client = await Client.open(hubAddress(), { channels: ['take'] });
  lab.writeIni({ listen: `127.0.0.1:${lab.shopPort}` });
  await lab.fpm.reload();
  for (let i = 0; i < 5; i++) await lab.get(`/push.php?channel=take&data=${i}`);
  await sleep(1000);
  assert.ok(alive(old.pid));
  assert.equal(client.over, undefined);
  assert.deepEqual(await client.messages('take', 5), range(5));
  await until(() => (lab.log() + lab.log('php.log')).includes(`127.0.0.1:${lab.shopPort}`), 'a word of why', 30000, () => lab.allLogs());
  client.close();
  await new Promise((done) => taken.close(done));
});

test('a new server that is killed while it takes over: the old one or a third one serves, and nothing is refused for long', async () => {
  const old = await begin({ drain: 2 });
  lab.writeIni({ ping_interval: 21 });
  await lab.fpm.reload();
  const asked = lab.get('/do.php?what=pid');
  const next = await until(() => lab.hubs().find(({ pid }) => pid !== old.pid), 'a new server', 30000);
  signal(next.pid, 'SIGKILL');
  await asked;
  await until(async () => (await lab.get('/push.php?channel=take&data=1')).status === 200, 'a server that takes a push', 30000, () => lab.allLogs());
  const client = await until(() => Client.open(hubAddress()).catch(() => undefined), 'a server', 30000);
  client.close();
});
