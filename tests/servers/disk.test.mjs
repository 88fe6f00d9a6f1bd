// realtime.history = disk: what pages were told is pushed reaches every client, once, whatever happens to the server.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, closeSync, mkdirSync, mkdtempSync, openSync, rmSync, rmdirSync, writeSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach } from 'node:test';
import { sleep, until } from '../browser/support.mjs';
import { Client, library } from './client.mjs';
import { isRoot, range, testsOf, user } from './lab.mjs';
import { ends, kill } from './proc.mjs';
import { site } from './servers.mjs';

let lab;

const test = testsOf(() => lab);
let mounted;
afterEach(async () => {
  // Before the directory is removed; the server may still have it open.
  if (mounted) spawnSync('umount', ['--lazy', mounted]);
  mounted = undefined;
  await lab?.end();
  lab = undefined;
});

async function begin(settings = {}, prepare = () => {}) {
  lab = await site({ lab: { settings: { history: 'disk', history_size: 100000, drain: 1, ...settings } }, fpm: { pool: { pm: 'static', 'pm.max_children': 3 } } });
  const data = lab.file('data');
  mkdirSync(data);
  prepare(data);
  chmodSync(data, 0o700);
  lab.give(data);
  lab.writeIni({ data_dir: data });
  // Read by the workers only when they start.
  await lab.fpm.reload();
  await lab.push('disk', 'first');
  return lab.hub();
}

/** Our client, through nginx; what it got on the channel and what it was told when it subscribed. */
async function listener() {
  const rt = library(lab.hubUrl);
  const got = [];
  await rt.subscribe('disk', (data) => got.push(data)).ready;
  return { rt, got };
}

/**
 * Pages that push numbers, several at a time, and keep what was acknowledged until `end()`. With ids of their own: when a server is
 * killed before it could answer, rt_broadcast() tells the next one the same again.
 */
function publishers(count = 3) {
  const acknowledged = [];
  const refused = [];
  let number = 0;
  let stop = false;
  const work = range(count).map(async () => {
    while (!stop) {
      const mine = number++;
      const { status, json } = await lab.get(`/push.php?channel=disk&data=${mine}&id=own-${mine}`);
      (status === 200 && json?.id ? acknowledged : refused).push(mine);
      if (status !== 200) await sleep(20);
    }
  });
  return {
    acknowledged, refused,
    async end() { stop = true; await Promise.all(work); return acknowledged; },
  };
}

/** What was acknowledged is what came, each of it once. A push whose worker heard no answer may have come, or not. */
function complete({ rt, got }, acknowledged, refused) {
  const numbers = got.filter((data) => typeof data === 'number');
  const counts = new Map();
  for (const number of numbers) counts.set(number, (counts.get(number) ?? 0) + 1);
  assert.deepEqual(acknowledged.filter((number) => !counts.has(number)), [], 'lost');
  assert.deepEqual([...counts].filter(([, times]) => times > 1), [], 'doubled');
  assert.deepEqual(numbers.filter((number) => !acknowledged.includes(number) && !refused.includes(number)), [], 'never pushed');
  assert.equal(rt.times('gap'), 0, 'no word of a gap');
}

for (const fsync of ['interval', 'always']) {
  test(`SIGKILL of the server while pages push, fsync = ${fsync}: clients resume and have every acknowledged message once`, async () => {
    let hub = await begin({ fsync });
    const listeners = await Promise.all(range(5).map(listener));
    // A bare client that went before, with the position it has.
    const gone = await Client.open(lab.hubUrl, { channels: ['disk'] });
    const { id: since } = await lab.push('disk', 'seen by all');
    await gone.messages('disk', 1);
    gone.close();
    const pushing = publishers();
    for (let round = 1; round <= 3; round++) {
      const before = pushing.acknowledged.length;
      await until(() => pushing.acknowledged.length >= before + 60, 'messages', 30000, () => lab.allLogs());
      await kill(hub.pid);
      const old = hub;
      await until(() => lab.hubs().some(({ pid }) => pid !== old.pid), 'a new server', 30000, () => lab.allLogs());
      hub = await lab.hub();
      await until(() => listeners.every(({ rt }) => rt.times('open') > round), 'all clients back', 30000, () => listeners.map(({ rt }) => rt.log));
    }
    const acknowledged = await pushing.end();
    await lab.push('disk', 'last');
    for (const one of listeners) {
      await until(() => one.got.at(-1) === 'last', 'the last message', 30000, () => one.got.slice(-5));
      complete(one, acknowledged, pushing.refused);
    }
    // Three servers later the position of before any of them was killed is still good.
    const back = await Client.open(lab.hubUrl);
    const answer = await back.subscribe('disk', since);
    assert.equal(answer.recovered, true);
    await back.frame('message', ({ data }) => data === 'last');
    const replayed = back.data('disk');
    assert.deepEqual(acknowledged.filter((number) => !replayed.includes(number)), []);
    assert.equal(new Set(replayed).size, replayed.length);
  });
}

test('PHP-FPM stopped and started: the history is there again', async () => {
  const hub = await begin({ linger: 0.5 });
  const { id: since } = await lab.push('disk', 'the position');
  for (const number of range(20)) await lab.push('disk', number);
  await lab.fpm.stop();
  assert.ok(await ends(hub.pid, 30000));
  await lab.fpm.start();
  await lab.push('disk', 20);
  const client = await Client.open(lab.hubUrl);
  assert.equal((await client.subscribe('disk', since)).recovered, true);
  assert.deepEqual(await client.messages('disk', 21), range(21));
});

test('reloads with changed settings while pages push: the directory goes from server to server, and nothing is lost', async () => {
  let hub = await begin();
  const listeners = await Promise.all(range(5).map(listener));
  const { id: since } = await lab.push('disk', 'seen by all');
  const pushing = publishers();
  for (const round of range(3)) {
    const before = pushing.acknowledged.length;
    await until(() => pushing.acknowledged.length >= before + 60, 'messages', 30000, () => lab.allLogs());
    lab.writeIni({ ping_interval: 20 + round });
    await lab.fpm.reload();
    await lab.get('/do.php?what=pid');
    assert.ok(await ends(hub.pid, 30000), 'the old one ends when its clients have gone');
    hub = await lab.hub();
  }
  const acknowledged = await pushing.end();
  assert.deepEqual(pushing.refused, [], 'no push fails because of a takeover');
  // The last one has all of it on disk.
  await kill(hub.pid);
  await until(async () => (await lab.get('/push.php?channel=disk&data="last"')).status === 200, 'a new server', 30000, () => lab.allLogs());
  for (const one of listeners) {
    await until(() => one.got.at(-1) === 'last', 'the last message', 30000, () => [one.got.slice(-5), one.rt.log]);
    complete(one, acknowledged, []);
  }
  const back = await Client.open(lab.hubUrl);
  assert.equal((await back.subscribe('disk', since)).recovered, true);
  assert.deepEqual((await back.messages('disk', acknowledged.length + 1)).filter((data) => data !== 'last').sort((a, b) => a - b), [...acknowledged].sort((a, b) => a - b));
});

/** A file that takes what room there is, and gives it back when it is removed. */
function fill(file) {
  const descriptor = openSync(file, 'w');
  try {
    for (const size of [1 << 16, 1 << 12, 1]) {
      for (const bytes = Buffer.alloc(size, 1);;) if (writeSync(descriptor, bytes) < size) break;
    }
  } catch (error) {
    if (error.code !== 'ENOSPC') throw error;
  } finally {
    closeSync(descriptor);
  }
}

/** Makes `directory` a disk of 12 MB; says why not when that is not allowed here. */
function mount(directory) {
  if (!isRoot) return 'needs root, to mount a small disk';
  const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=12m,mode=700,uid=${user.uid}`, 'tmpfs', directory], { encoding: 'utf8' });
  if (status !== 0) return `mount is not allowed here: ${stderr.trim()}`;
  mounted = directory;
  return undefined;
}

/** The same, before there are servers. */
function mountable() {
  const probe = mkdtempSync(path.join(os.tmpdir(), 'rt-mount-'));
  const refusal = mount(probe);
  if (!refusal) spawnSync('umount', [probe]);
  mounted = undefined;
  rmdirSync(probe);
  return refusal;
}

for (const fsync of ['interval', 'always']) {
  test(`a full disk, fsync = ${fsync}: a clear word to who pushes, and it goes on when there is room`, async (t) => {
    const refusal = mountable();
    if (refusal) return t.skip(refusal);
    let hub = await begin({ fsync, history_bytes: '64M' }, mount);
    assert.ok(mounted);
    const client = await Client.open(lab.hubUrl, { channels: ['disk'] });
    let number = 0;
    const acknowledged = [];
    /** Pushes some 2 KB. */
    const push = async () => {
      const data = `${number++}:${'x'.repeat(2000)}`;
      const answer = await lab.get(`/push.php?channel=disk&data=${JSON.stringify(data)}`);
      if (answer.status === 200) acknowledged.push(data);
      return answer;
    };
    assert.equal((await push()).status, 200);
    const ballast = path.join(mounted, 'ballast');
    for (let round = 0; round < 2; round++) {
      fill(ballast);
      const { json } = await until(async () => {
        const answer = await push();
        return answer.status !== 200 && answer;
      }, 'a refusal', 30000, () => lab.allLogs());
      assert.match(json.error, new RegExp(`${mounted}.*realtime\\.data_dir.*no space left on the device.*make room`));
      assert.ok(json.ms < 10000, `it took ${json.ms} ms`);
      // Pages that push nothing to be kept, and clients, notice nothing.
      assert.equal((await lab.get('/push.php?channel=disk&data="passing"&store=0')).status, 200);
      await client.frame('message', ({ data }) => data === 'passing');
      assert.equal(client.over, undefined);
      if (round === 1) {
        // A crash in this state: the next server starts on the full disk with what was acknowledged.
        await kill(hub.pid);
        await until(async () => (await lab.get('/push.php?channel=disk&data="passing"&store=0')).status === 200, 'a server on a full disk', 30000, () => lab.allLogs());
        hub = await lab.hub();
      }
      rmSync(ballast);
      await until(async () => (await push()).status === 200, 'room again', 30000, () => lab.allLogs());
    }
    const kept = JSON.parse(await lab.php('echo json_encode(array_column(rt_history("disk", 100000), "data"));'));
    assert.deepEqual(acknowledged.filter((data) => !kept.includes(data)), [], 'lost');
    const lines = lab.log().split('\n').filter((line) => /no space left/.test(line));
    assert.ok(lines.length >= 2 && lines.length <= 4, `${lines.length} lines in the log`);
    client.close();
  });
}

test('a reload on a full disk: the next server has what was acknowledged, refuses what it cannot keep, and goes on when there is room', async (t) => {
  const refusal = mountable();
  if (refusal) return t.skip(refusal);
  const old = await begin({ history_bytes: '64M' }, mount);
  const client = await Client.open(lab.hubUrl, { channels: ['disk'] });
  const { id: since } = await lab.push('disk', 'the position');
  let number = 0;
  const acknowledged = [];
  const push = async () => {
    const data = `${number++}:${'x'.repeat(2000)}`;
    const answer = await lab.get(`/push.php?channel=disk&data=${JSON.stringify(data)}`);
    if (answer.status === 200) acknowledged.push(data);
    return answer;
  };
  const ballast = path.join(mounted, 'ballast');
  fill(ballast);
  await until(async () => (await push()).status !== 200, 'a refusal', 30000, () => lab.allLogs());
  lab.writeIni({ ping_interval: 21 });
  await lab.fpm.reload();
  await lab.get('/do.php?what=pid');
  await until(async () => (await lab.hub()).pid !== old.pid, 'another server', 30000, () => lab.allLogs());
  for (let round = 0; round < 2; round++) {
    const { status, json } = await push();
    assert.equal(status, 500);
    assert.match(json.error, new RegExp(`${mounted}.*realtime\\.data_dir.*no space left on the device.*make room`));
    assert.ok(json.ms < 10000, `it took ${json.ms} ms`);
    assert.equal((await lab.get('/push.php?channel=disk&data="passing"&store=0')).status, 200);
    const kept = JSON.parse(await lab.php('echo json_encode(array_column(rt_history("disk", 100000), "data"));'));
    assert.deepEqual(acknowledged.filter((data) => !kept.includes(data)), [], 'lost');
    if (round === 1) break;
    // What the first of them had to tell the second is nowhere but on the disk by now.
    const { pid } = await lab.hub();
    await kill(pid);
    await until(async () => (await lab.get('/push.php?channel=disk&data="passing"&store=0')).status === 200, 'a server on a full disk', 30000, () => lab.allLogs());
  }
  rmSync(ballast);
  await until(async () => (await push()).status === 200, 'room again', 30000, () => lab.allLogs());
  const back = await Client.open(lab.hubUrl);
  assert.equal((await back.subscribe('disk', since)).recovered, true);
  assert.deepEqual(await back.messages('disk', acknowledged.length), acknowledged);
  client.close();
});

test('a disk that is full from the beginning', async (t) => {
  const refusal = mountable();
  if (refusal) return t.skip(refusal);
  lab = await site({ lab: { settings: { history: 'disk' } }, fpm: { pool: { pm: 'static', 'pm.max_children': 2 } } });
  const data = lab.file('data');
  mkdirSync(data);
  assert.equal(mount(data), undefined);
  const ballast = path.join(data, 'ballast');
  fill(ballast);
  lab.writeIni({ data_dir: data });
  await lab.fpm.reload();
  for (let i = 0; i < 5; i++) {
    const { status, json } = await lab.get('/push.php?channel=disk&data=1');
    assert.equal(status, 500);
    assert.match(json.error, new RegExp(`${data}.*realtime\\.data_dir.*(no space left|disk is full)`, 'i'));
    assert.ok(json.ms < 10000, `it took ${json.ms} ms`);
    // It serves whoever needs no disk.
    assert.equal((await lab.get('/push.php?channel=disk&data="passing"&store=0')).status, 200);
  }
  rmSync(ballast);
  await until(async () => (await lab.get('/push.php?channel=disk&data=2')).status === 200, 'a server', 30000, () => lab.allLogs());
  assert.equal(await lab.php('echo json_encode(array_column(rt_history("disk"), "data"));'), '[2]');
});
