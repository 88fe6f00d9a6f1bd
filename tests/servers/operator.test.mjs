// What an operator sees and may get wrong: root, the log, limits, addresses that are taken, directories and stale files.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, renameSync, statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { afterEach, describe } from 'node:test';
import { sleep, until } from '../browser/support.mjs';
import { Client } from './client.mjs';
import { account, isRoot, Lab, testsOf, user } from './lab.mjs';
import { ends, fileLimits, kill, signal } from './proc.mjs';
import { Fpm, Nginx, shared, site } from './servers.mjs';

const STATIC = { pm: 'static', 'pm.max_children': 2 };
const push = '/push.php?channel=op&data=1';
let lab;

const test = testsOf(() => lab);
afterEach(async () => {
  await lab?.end();
  lab = undefined;
});

const count = (text, what) => text.split('\n').filter((line) => what.test(line)).length;

/** Asks for the same push again and again; all must fail, quickly, with the same word. Returns that. */
async function refused(times = 10) {
  const errors = new Set();
  for (let i = 0; i < times; i++) {
    const started = Date.now();
    const { status, json } = await lab.get(push);
    assert.equal(status, 500);
    assert.ok(Date.now() - started < 10000, `a page took ${Date.now() - started} ms`);
    errors.add(json.error);
  }
  assert.deepEqual(lab.hubs(), []);
  return [...errors].join('\n');
}

describe('root', () => {
  // An ordinary user is root in a namespace of its own.
  const wrap = isRoot ? [] : ['unshare', '--map-root-user', '--fork', '--kill-child'];
  const able = () => isRoot || spawnSync(wrap[0], [...wrap.slice(1), 'true']).status === 0;

  async function asRoot(settings) {
    lab = await Lab.make({ ini: shared, settings });
    // In a directory that is root's own.
    lab.writeIni({ socket: lab.file('hub.sock') });
    lab.fpm = await new Fpm(lab, { pool: { ...STATIC, 'listen.mode': '0666' }, as: 'root', wrap, args: ['-R'] }).start();
    lab.nginx = await new Nginx(lab).start();
  }

  test('it does not serve as root, and says so once', async (t) => {
    if (!able()) return t.skip('unshare is not allowed here');
    await asRoot({});
    assert.match(await refused(), /realtime\.allow_root/);
    assert.equal((await lab.get('/do.php?what=pid')).status, 200, 'pages work without it');
    assert.equal(count(lab.log() + lab.log('php.log'), /allow_root/), 1, 'one line in the log');
  });

  test('realtime.allow_root=1 allows it', async (t) => {
    if (!able()) return t.skip('unshare is not allowed here');
    await asRoot({ allow_root: 1 });
    await lab.push('op', 1);
    await lab.hub();
  });
});

describe('the log', () => {
  test('realtime.log gets what is to say, with the time', async () => {
    lab = await site({ fpm: { pool: STATIC } });
    await lab.push('op', 1);
    await until(() => lab.log().includes(`127.0.0.1:${lab.port}`), 'a line with the address', 30000, () => lab.log());
    assert.match(lab.log(), /^\[?\d{4}-\d\d-\d\d|^\[\d\d-\w{3}-\d{4}/m);
    assert.equal(statSync(lab.file('log/realtime.log')).uid, user.uid);
  });

  test('without realtime.log: PHP\'s error_log, in its format', async () => {
    lab = await site({ fpm: { pool: STATIC }, lab: { settings: { log: '' } } });
    await lab.push('op', 1);
    await until(() => /realtime/.test(lab.log('php.log')), 'a line in error_log', 30000, () => lab.allLogs());
    for (const line of lab.log('php.log').trim().split('\n')) assert.match(line, /^\[\d\d-\w{3}-\d{4} \d\d:\d\d:\d\d [\w/+:-]+\] .*/);
  });

  test('a log file that cannot be written does no harm, and neither does a full disk', async () => {
    for (const log of ['/dev/full', '/proc/nowhere/realtime.log', '/']) {
      lab = await site({ fpm: { pool: STATIC }, lab: { settings: { log, log_level: 'trace' } } });
      await lab.push('op', 1);
      const client = await Client.open(lab.hubUrl, { channels: ['op'] });
      for (let i = 0; i < 20; i++) await lab.push('op', i);
      assert.equal((await client.messages('op', 20)).length, 20, log);
      client.close();
      await lab.end();
    }
    lab = undefined;
  });

  test('a log that is rotated away comes back', async () => {
    lab = await site({ fpm: { pool: STATIC } });
    await lab.push('op', 1);
    const hub = await lab.hub();
    renameSync(lab.file('log/realtime.log'), lab.file('log/realtime.log.1'));
    signal(hub.pid, 'SIGTERM');
    await ends(hub.pid);
    await lab.push('op', 2);
    await until(() => lab.log(), 'a new log file');
  });
});

test('the limit of open files is raised to the hard one', async () => {
  lab = await Lab.make({ ini: shared });
  lab.fpm = await new Fpm(lab, { pool: STATIC, wrap: ['prlimit', '--nofile=256:4096'] }).start();
  lab.nginx = await new Nginx(lab).start();
  await lab.push('op', 1);
  const hub = await lab.hub();
  assert.deepEqual(fileLimits(hub.pid), [4096, 4096]);
  const clients = await Promise.all(Array.from({ length: 400 }, () => Client.open(`http://127.0.0.1:${lab.port}`)));
  assert.equal(Number(JSON.parse(await lab.php('echo rt_stats()["connections"];'))), 400);
  for (const client of clients) client.close();
});

test('autostart off: no server, and the error says which socket was tried', async () => {
  lab = await site({ fpm: { pool: STATIC }, lab: { settings: { autostart: 0 } } });
  assert.match(await refused(3), new RegExp(`no realtime server is running.*${lab.socket}`));
});

describe('addresses', () => {
  test('a port that another program has: one clear line in the log, the same in the exception, and no loop', async () => {
    lab = await Lab.make({ ini: shared });
    const other = net.createServer();
    await new Promise((done) => other.listen(lab.port, '127.0.0.1', done));
    lab.fpm = await new Fpm(lab, { pool: STATIC }).start();
    lab.nginx = await new Nginx(lab).start();
    const said = await refused(20);
    assert.match(said, new RegExp(`127\\.0\\.0\\.1:${lab.port}.*realtime\\.listen|realtime\\.listen.*127\\.0\\.0\\.1:${lab.port}`));
    await sleep(1500);
    const lines = count(lab.log() + lab.log('php.log'), new RegExp(`127\\.0\\.0\\.1:${lab.port}`));
    assert.ok(lines >= 1 && lines <= 3, `${lines} lines in the log`);
    // As soon as the address is free a later request starts the server.
    await new Promise((done) => other.close(done));
    await until(async () => (await lab.get(push)).status === 200, 'a server', 30000, () => lab.allLogs());
  });

  test('an address that this machine does not have', async () => {
    lab = await site({ fpm: { pool: STATIC }, lab: { settings: { listen: '203.0.113.1:8080' } } });
    assert.match(await refused(3), /203\.0\.113\.1:8080/);
  });

  test('a setting that makes no sense is a warning, and the default stays', async () => {
    lab = await site({ fpm: { pool: STATIC }, lab: { settings: { ping_interval: 'soon' } } });
    await lab.push('op', 1);
    assert.match(lab.log('php.log') + lab.log('fpm.log') + lab.fpm.child.output(), /realtime\.ping_interval must be .*"soon" given/);
  });
});

describe('the control socket\'s place', () => {
  test('a directory that others can write is refused', async () => {
    lab = await Lab.make({ ini: shared });
    const shady = lab.file('shady');
    mkdirSync(shady);
    lab.give(shady);
    chmodSync(shady, 0o777);
    lab.writeIni({ socket: `${shady}/hub.sock` });
    lab.fpm = await new Fpm(lab, { pool: STATIC }).start();
    lab.nginx = await new Nginx(lab).start();
    const said = await refused();
    assert.match(said, /where other users can write/);
    assert.match(said, new RegExp(shady));
    assert.ok(count(lab.log() + lab.log('php.log'), /other users can write/) <= 2);
  });

  test('a directory that belongs to somebody else is refused', async (t) => {
    if (!isRoot) return t.skip('needs root');
    lab = await Lab.make({ ini: shared });
    const foreign = lab.file('foreign');
    mkdirSync(foreign);
    lab.give(foreign, account('nobody'));
    lab.writeIni({ socket: `${foreign}/hub.sock` });
    lab.fpm = await new Fpm(lab, { pool: STATIC }).start();
    lab.nginx = await new Nginx(lab).start();
    assert.match(await refused(3), new RegExp(foreign));
  });

  test('without realtime.socket the default one works for the pool and its command line', async () => {
    lab = await Lab.make({ ini: shared, settings: { socket: '' } });
    // Of the whole machine's user: somebody else's server may be there.
    const place = `/tmp/realtime-${user.uid}/hub.sock`;
    if (existsSync(place)) {
      const free = await new Promise((done) => {
        const socket = net.connect(place, () => { socket.destroy(); done(false); });
        socket.once('error', () => done(true));
      });
      assert.ok(free, `something of this user listens on ${place}`);
    }
    lab.fpm = await new Fpm(lab, { pool: STATIC }).start();
    lab.nginx = await new Nginx(lab).start();
    await lab.push('op', 1);
    const client = await Client.open(`http://127.0.0.1:${lab.port}`, { channels: ['op'] });
    await lab.php('rt_broadcast("op", "cli");');
    assert.deepEqual(await client.messages('op', 1), ['cli']);
    assert.equal(statSync(`/tmp/realtime-${user.uid}`).mode & 0o777, 0o700);
    client.close();
  });

  test('a stale socket and a stale lock are no obstacle', async () => {
    lab = await site({ fpm: { pool: STATIC } });
    await lab.push('op', 1);
    await kill((await lab.hub()).pid);
    assert.ok(existsSync(lab.socket), 'the socket file is left');
    await lab.push('op', 2);
    // Nor are files of other kinds that somebody left there.
    const { pid } = await lab.hub();
    signal(pid, 'SIGTERM');
    assert.ok(await ends(pid));
    writeFileSync(`${lab.socket}.lock`, 'rubbish\0'.repeat(100));
    lab.give(`${lab.socket}.lock`);
    await until(async () => (await lab.get(push)).status === 200, 'a server', 30000, () => lab.allLogs());
  });

  test('a socket that is stale because a program took its path: a clear error, never a wrong peer', async () => {
    lab = await Lab.make({ ini: shared });
    const server = net.createServer((socket) => socket.on('error', () => {}).resume().end('I am no realtime server\r\n'));
    await new Promise((done) => server.listen(lab.socket, done));
    lab.give(lab.socket);
    lab.fpm = await new Fpm(lab, { pool: STATIC }).start();
    lab.nginx = await new Nginx(lab).start();
    const said = await refused(3);
    assert.match(said, new RegExp(lab.socket));
    await new Promise((done) => server.close(done));
  });

  test('realtime.socket_mode and realtime.socket_group let others push', async (t) => {
    if (!isRoot) return t.skip('needs root');
    lab = await site({ fpm: { pool: STATIC }, lab: { settings: { socket_mode: '0666' } } });
    await lab.push('op', 1);
    const client = await Client.open(lab.hubUrl, { channels: ['op'] });
    await lab.php('rt_broadcast("op", "by nobody");', { as: account('nobody') });
    assert.deepEqual(await client.messages('op', 1), ['by nobody']);
    assert.equal(statSync(lab.socket).mode & 0o777, 0o666);
    client.close();
  });
});
