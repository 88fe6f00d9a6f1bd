// Clients that vanish: their machine or the way to it is gone, and no word of it ever comes.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { createRequire } from 'node:module';
import path from 'node:path';
import { afterEach } from 'node:test';
import { root, sleep, until } from '../browser/support.mjs';
import { account, Lab, testsOf } from './lab.mjs';
import { Network, refusal, SERVER } from './network.mjs';
import { descriptors } from './proc.mjs';
import { shared } from './servers.mjs';

const SECRET = 'a-secret-of-the-tests-that-is-long-enough';
const ws = createRequire(path.join(root, 'tests/browser/support.mjs')).resolve('ws');
let lab;

const test = testsOf(() => lab);
afterEach(async () => {
  await lab?.end();
  lab = undefined;
});

function token(user) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { iat: now, exp: now + 600, sub: user, channels: 'presence-*' };
  const text = [{ alg: 'HS256', typ: 'JWT' }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`;
}

/** A server, and a visitor by each transport on another machine. */
async function begin(settings) {
  lab = await Lab.make({ ini: shared, settings: { secret: SECRET, ping_interval: 2, presence_grace: 1, ...settings } });
  lab.writeIni({ listen: `${SERVER}:8080`, socket: lab.file('hub.sock') });
  const network = await Network.make(lab);
  const enter = (place, ...command) => {
    const [program, ...rest] = [...network.in(place), ...command];
    return lab.start(program, rest, { name: command.at(-1), env: { PHP_CLI_SERVER_WORKERS: '' } });
  };
  lab.put('alone.php', "<?php echo rt_listen(), \"\\n\"; rt_run();");
  const server = enter('server', process.env.PHP || 'php', '-c', lab.file('php.ini'), '-d', 'realtime.allow_root=1', `${lab.site}/alone.php`);
  await until(() => server.output().includes(SERVER) || server.over, 'a server', 30000, () => server.output());
  const visitors = {};
  for (const [user, what] of [['ada', 'ws'], ['bob', 'sse']]) {
    visitors[user] = enter('client', process.execPath, `${lab.site}/visitor.mjs`, what, `${SERVER}:8080`, token(user), ws);
  }
  // One beside the server, who sees them go.
  const witness = enter('server', process.execPath, `${lab.site}/visitor.mjs`, 'ws', `${SERVER}:8080`, token('eve'), ws);
  await until(async () => (await present()).length === 3, 'all three', 30000, () => [visitors.ada.output(), visitors.bob.output(), witness.output()]);
  const left = (user) => witness.output().split('\n').filter((line) => line.includes('"leave"') && line.includes(`"${user}"`)).length;
  return { network, server, visitors, left };
}

const asRoot = { as: account('root') };
const php = async (code) => JSON.parse(await lab.php(`echo json_encode(${code});`, asRoot));
const present = () => php('array_keys(rt_presence("presence-room"))');

test('leave presence channels when their lease runs out, by WebSocket and by a stream, and leave nothing behind', async (t) => {
  const why = refusal();
  if (why) return t.skip(why);
  const { network, server, visitors, left } = await begin();
  // Idle, and there: longer than it takes to be missed.
  await sleep(9000);
  assert.deepEqual((await present()).sort(), ['ada', 'bob', 'eve']);
  const before = descriptors(server.pid).length;
  network.cut();
  const cut = Date.now();
  await until(() => left('ada') && left('bob'), 'both have left', 30000, async () => lab.allLogs());
  const took = Date.now() - cut;
  // Two to three pings without an answer, then the grace time.
  assert.ok(took > 3000 && took < 30000, `after ${took} ms`);
  assert.deepEqual(await present(), ['eve']);
  assert.deepEqual([left('ada'), left('bob')], [1, 1], 'once each');
  await until(async () => (await php('rt_stats()')).connections === 1, 'no connection of theirs', 30000);
  await until(() => descriptors(server.pid).length <= before - 2, 'no descriptor of theirs', 30000, () => descriptors(server.pid));
  assert.doesNotMatch(visitors.ada.output() + visitors.bob.output(), /closed|end$|error/m, 'they know nothing of it');
});

test('and come back within the grace time: they have never been away', async (t) => {
  const why = refusal();
  if (why) return t.skip(why);
  const { network, left } = await begin({ presence_grace: 20 });
  network.cut();
  await until(async () => (await php('rt_stats()')).connections === 1, 'no connection of theirs', 30000);
  assert.deepEqual((await present()).sort(), ['ada', 'bob', 'eve'], 'still there for the others');
  network.restore();
  for (const [user, what] of [['ada', 'ws'], ['bob', 'sse']]) {
    const [program, ...rest] = [...network.in('client'), process.execPath, `${lab.site}/visitor.mjs`, what, `${SERVER}:8080`, token(user), ws];
    lab.start(program, rest, { name: user });
  }
  await until(async () => (await php('rt_stats()')).connections === 3, 'all three again', 30000);
  await sleep(500);
  assert.deepEqual((await present()).sort(), ['ada', 'bob', 'eve']);
  assert.deepEqual([left('ada'), left('bob')], [0, 0]);
});

test('a shorter loss than that is none: messages wait in the kernel, and all arrive', async (t) => {
  const why = refusal();
  if (why) return t.skip(why);
  const { network, visitors, left } = await begin({ ping_interval: 10 });
  network.cut();
  await lab.php('for ($i = 0; $i < 20; $i++) rt_broadcast("presence-room", "number $i");', asRoot);
  await sleep(1000);
  network.restore();
  for (const { output } of Object.values(visitors)) {
    await until(() => output().includes('number 19"'), 'the last message', 30000, output);
    assert.deepEqual([...output().matchAll(/"number (\d+)"/g)].map(([, number]) => Number(number)), Array.from({ length: 20 }, (_, i) => i));
  }
  assert.deepEqual([left('ada'), left('bob')], [0, 0]);
});
