// What the server outlives, and what ends it: recycled, killed and crashed workers, reloads, the master's end, SIGKILL.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterEach, describe } from 'node:test';
import { EventSource, sleep, until } from '../browser/support.mjs';
import { Client, library } from './client.mjs';
import { directoryOf, isRoot, Lab, testsOf, user } from './lab.mjs';
import { alive, descriptors, ends, kill, look, processes, signal, socketsAt } from './proc.mjs';
import { Fpm, Nginx, shared, site } from './servers.mjs';

const STATIC = { pm: 'static', 'pm.max_children': 2 };
let lab;

const test = testsOf(() => lab);
afterEach(async () => {
  await lab?.end();
  lab = undefined;
});

/** A site, its server, and a client that has been there since before anything happens. */
async function begin(options) {
  lab = await site(options);
  await lab.push('life', 0);
  const hub = await lab.hub();
  const client = await Client.open(`http://127.0.0.1:${lab.port}`, { channels: ['life'] });
  return { hub, client };
}

/** The client is still connected to the same server, and what is pushed now arrives. */
async function unharmed({ hub, client }, already = client.data('life').length) {
  await lab.push('life', 'still here');
  assert.deepEqual((await client.messages('life', already + 1)).slice(already), ['still here']);
  assert.equal(client.over, undefined);
  assert.deepEqual(lab.hubs().map(({ pid }) => pid), [hub.pid], 'the same server as before');
  await lab.noZombies();
}

describe('workers come and go', () => {
  test('pm.max_requests: the worker that started it is gone, it and its clients stay', async () => {
    const all = await begin({ fpm: { pool: { ...STATIC, 'pm.max_requests': 3 } } });
    const pids = new Set();
    for (let i = 0; i < 60; i++) pids.add((await lab.push('life', i)).pid);
    assert.ok(pids.size >= 15, `${pids.size} workers`);
    assert.deepEqual(await all.client.messages('life', 60), Array.from({ length: 60 }, (_, i) => i));
    await unharmed(all);
  });

  test('pm = ondemand: no worker at all is left', async () => {
    const all = await begin({ fpm: { pool: { pm: 'ondemand', 'pm.process_idle_timeout': '1s' } } });
    await until(() => lab.fpm.workers().length === 0, 'no worker', 30000);
    await lab.php('rt_broadcast("life", "nobody works");');
    assert.deepEqual(await all.client.messages('life', 1), ['nobody works']);
    await unharmed(all);
  });

  test('request_terminate_timeout kills a worker', async () => {
    const all = await begin({ fpm: { pool: { ...STATIC, request_terminate_timeout: '5s' } } });
    const { status } = await lab.get('/do.php?what=sleep&seconds=30');
    assert.ok(status >= 500, `${status}`);
    await unharmed(all);
  });

  test('SIGSEGV and SIGKILL of workers', async () => {
    const all = await begin({ fpm: { pool: STATIC } });
    for (let i = 0; i < 3; i++) {
      assert.ok((await lab.get('/do.php?what=crash')).status >= 500);
      await until(() => lab.log('fpm.log').split('signal 11 (SIGSEGV').length === i + 2, 'a crash', 30000, () => lab.log('fpm.log'));
      await kill(...lab.fpm.workers().map(({ pid }) => pid));
      await until(() => lab.fpm.workers().length === 2, 'new workers');
      // nginx may have had a connection to one of them.
      await until(async () => (await lab.get('/do.php?what=pid')).status === 200, 'an answer');
    }
    await unharmed(all);
  });

  test('the worker that starts it dies at once after', async () => {
    lab = await site({ fpm: { pool: STATIC } });
    await lab.get('/do.php?what=crash');
    await until(() => /signal 11/.test(lab.log('fpm.log')), 'a crash');
    const hub = await lab.hub();
    const client = await Client.open(`http://127.0.0.1:${lab.port}`, { channels: ['life'] });
    await unharmed({ hub, client });
  });
});

describe('reloads', () => {
  for (const daemon of [false, true]) {
    test(`kill -USR2 ${daemon ? 'of a daemonized master, whose pid changes' : 'under -F'}: no client notices`, async () => {
      const all = await begin({ fpm: { pool: STATIC, daemon } });
      const first = lab.fpm.master;
      for (let i = 0; i < 3; i++) {
        await lab.fpm.reload();
        await lab.push('life', i);
      }
      if (daemon) assert.notEqual(lab.fpm.master, first);
      // A page is answered before everybody has its message.
      assert.deepEqual(await all.client.messages('life', 3), [0, 1, 2]);
      await unharmed(all);
      // And it is bound to the new master's life now.
      await lab.fpm.stop();
      assert.ok(await ends(all.hub.pid, 30000), 'the server ends with the new master');
      assert.equal((await all.client.closed).code, 1001);
    });
  }

  test('a daemonized reload that nobody visits for longer than realtime.linger', async () => {
    const all = await begin({ lab: { settings: { linger: '2' } }, fpm: { pool: STATIC, daemon: true } });
    await lab.fpm.reload();
    await sleep(5000);
    assert.ok(alive(all.hub.pid), 'it found the new master by itself');
    await unharmed(all);
  });
});

test('opcache.preload, whose script runs before there are workers, starts none', async () => {
  lab = await Lab.make({ handler: true, ini: shared });
  lab.put('preload.php', '<?php function preloaded() {}');
  lab.more += `\nopcache.preload=${lab.site}/preload.php\n${isRoot ? `opcache.preload_user=${user.name}` : ''}`;
  lab.writeIni();
  lab.fpm = await new Fpm(lab, { pool: STATIC }).start();
  lab.nginx = await new Nginx(lab).start();
  assert.deepEqual(lab.hubs(), []);
  await lab.push('life', 0);
  const hub = await lab.hub();
  const client = await Client.open(`http://127.0.0.1:${lab.port}`, { channels: ['life'] });
  assert.equal(await client.publish('life', 'to the pool'), 'to the pool', 'it knows where the pool listens');
  await lab.fpm.reload();
  await unharmed({ hub, client });
});

describe('its end', () => {
  for (const daemon of [false, true]) {
    for (const how of ['SIGTERM', 'SIGQUIT', 'SIGKILL']) {
      test(`within seconds of the ${daemon ? 'daemonized ' : ''}master's, by ${how}; a restart finds its address free`, async () => {
        const { hub, client } = await begin({ lab: { settings: { linger: '1' } }, fpm: { pool: STATIC, daemon } });
        await lab.fpm.stop(how);
        // After SIGKILL the workers go on and have to be ended by somebody, here us.
        // Until they have gone, the pool's socket is in use.
        const left = processes().filter(({ pid, title }) => title === 'php-fpm: pool www' && directoryOf(pid).startsWith(lab.home));
        await kill(...left.map(({ pid }) => pid));
        assert.ok(await ends(hub.pid, 30000), 'the server has ended');
        assert.deepEqual(await client.closed, { code: 1001, reason: client.over.reason }, 'clients are told to come back');
        lab.fpm = await new Fpm(lab, { pool: STATIC, daemon }).start();
        await lab.push('life', 'again');
        const next = await lab.hub();
        assert.notEqual(next.pid, hub.pid);
        const back = await Client.open(`http://127.0.0.1:${lab.port}`, { channels: ['life'] });
        await unharmed({ hub: next, client: back });
        assert.doesNotMatch(lab.log() + lab.log('php.log'), /in use|is taken|cannot listen/i);
      });
    }
  }

  test('a restart at once, ten times in a row', async () => {
    await begin({ lab: { settings: { linger: '10' } }, fpm: { pool: STATIC } });
    for (let i = 0; i < 10; i++) {
      await lab.fpm.stop('SIGTERM');
      await lab.fpm.start();
      await lab.push('life', i);
      await lab.hub();
    }
    assert.doesNotMatch(lab.log() + lab.log('php.log'), /in use|is taken|cannot listen/i);
  });

  test('SIGTERM to it: 1001 for every client, exit, and the next request starts a new one', async () => {
    const { hub, client } = await begin({ fpm: { pool: STATIC } });
    signal(hub.pid, 'SIGTERM');
    assert.equal((await client.closed).code, 1001);
    assert.ok(await ends(hub.pid));
    await lab.push('life', 'after');
    assert.notEqual((await lab.hub()).pid, hub.pid);
  });

  test('SIGKILL: the next request starts a new one, clients come back, and hear that there is a gap', async () => {
    const { hub } = await begin({ fpm: { pool: STATIC } });
    const rt = library(`http://127.0.0.1:${lab.port}`);
    const got = [];
    await rt.subscribe('life', (data) => got.push(data)).ready;
    await lab.push('life', 'before');
    await until(() => got.length === 1, 'a message');
    signal(hub.pid, 'SIGKILL');
    await until(() => rt.times('close') === 1, 'the loss of the connection');
    const started = Date.now();
    const { ms } = await lab.push('life', 'lost on the way back');
    assert.ok(ms < 10000, `rt_broadcast() took ${ms} ms`);
    await until(() => rt.times('open') === 2, 'the client is back', 30000, () => rt.log);
    await until(() => rt.times('gap') === 1, 'the word that something may be missing', 30000, () => rt.log);
    assert.ok(Date.now() - started < 20000);
    await lab.push('life', 'after');
    await until(() => got.at(-1) === 'after', 'live messages again', 30000, () => got);
    await lab.noZombies();
    rt.close();
  });

  test('SIGKILL, and no request for a while: an EventSource behind nginx comes back all the same', async () => {
    const { hub } = await begin({ fpm: { pool: STATIC } });
    const got = [];
    const source = new EventSource(`${lab.hubUrl}/sse?channel=life`);
    source.onmessage = ({ data }) => got.push(JSON.parse(data));
    try {
      await until(() => source.readyState === EventSource.OPEN, 'a connection');
      signal(hub.pid, 'SIGKILL');
      // It tries every two seconds, and finds nobody.
      await sleep(5000);
      assert.equal(source.readyState, EventSource.CONNECTING);
      await until(async () => {
        await lab.push('life', 'back');
        return got.includes('back');
      }, 'live messages again');
    } finally {
      source.close();
    }
  });

  test('killed again and again: every time a request brings it back', async () => {
    await begin({ fpm: { pool: STATIC } });
    for (let i = 0; i < 3; i++) {
      const { pid } = await lab.hub();
      await kill(pid);
      // It waits longer each time, and says so; never is there a loop.
      await until(async () => (await lab.get('/push.php?channel=life&data=1')).status === 200, 'a server again', 30000, () => lab.allLogs());
      assert.notEqual((await lab.hub()).pid, pid);
    }
  });
});

describe('a good child', () => {
  test('it holds no descriptor of PHP-FPM, its clients or its master, and the workers none of its', async () => {
    const { hub, client } = await begin({ fpm: { pool: { ...STATIC, 'pm.max_requests': 5 } } });
    for (let i = 0; i < 50; i++) await lab.push('life', i);
    const held = descriptors(hub.pid);
    const ofFpm = socketsAt(lab.fpm.sockets[0]);
    assert.ok(ofFpm.length > 0);
    for (const { fd, is } of held) {
      assert.ok(!ofFpm.includes(is), `descriptor ${fd} is PHP-FPM's ${is}`);
      assert.doesNotMatch(is, /\.php$|php\.log|fpm\.log|^pipe:/, `descriptor ${fd}`);
      if (fd < 2) assert.equal(is, '/dev/null');
    }
    await sleep(100);
    const before = descriptors(hub.pid).length;
    for (let i = 0; i < 50; i++) await lab.push('life', i);
    // Ten workers came and went meanwhile; the last may still be on its way out.
    await until(() => descriptors(hub.pid).length <= before + 2, `the ${before} descriptors of before`, 30000, () => descriptors(hub.pid));
    const inodes = tcpListeners(lab.port);
    assert.equal(inodes.length, 1);
    for (const worker of lab.fpm.workers()) {
      assert.ok(!descriptors(worker.pid).some(({ is }) => inodes.includes(is)), 'no worker holds the listening socket');
    }
    client.close();
  });

  test('it is nobody\'s child but init\'s, leads a session of its own, and wears its own name', async () => {
    const { hub } = await begin({ fpm: { pool: STATIC } });
    assert.equal(hub.title, `realtime: hub on 127.0.0.1:${lab.port}`);
    assert.ok(hub.name.startsWith('realtime'), hub.name);
    assert.notEqual(hub.session, look(lab.fpm.master).session);
    // The worker that started it is still there, and has buried what stood between the two.
    await lab.noZombies();
    for (const worker of lab.fpm.workers()) assert.notEqual(hub.parent, worker.pid);
  });

  test('no shutdown function, no destructor and no output buffer of the page runs in it', async () => {
    lab = await site({ fpm: { pool: STATIC }, lab: { ini: 'auto_prepend_file=' } });
    lab.put('before.php', `<?php
      register_shutdown_function(fn () => file_put_contents('${lab.site}/shutdown.txt', getmypid() . "\\n", FILE_APPEND));`);
    lab.put('public/first.php', `<?php require '${lab.site}/before.php'; ob_start(); echo 'page'; rt_broadcast('life', 1); echo getmypid();`);
    const { text } = await lab.get('/first.php');
    const hub = await lab.hub();
    signal(hub.pid, 'SIGTERM');
    await ends(hub.pid);
    assert.deepEqual(readFileSync(`${lab.site}/shutdown.txt`, 'utf8').trim().split('\n').map((pid) => `page${pid}`), [text]);
  });

  test('as the first process of a container', async (t) => {
    const wrap = ['unshare', ...(isRoot ? [] : ['--map-root-user']), '--pid', '--fork', '--mount-proc', '--kill-child'];
    if (spawnSync(wrap[0], [...wrap.slice(1), 'true']).status !== 0) return t.skip('unshare is not allowed here');
    lab = await Lab.make({ ini: shared, settings: isRoot ? {} : { allow_root: 1 } });
    lab.fpm = new Fpm(lab, { pool: STATIC, wrap, ...(!isRoot && { as: 'root', args: ['-R'] }) });
    await lab.fpm.start();
    lab.nginx = await new Nginx(lab).start();
    await lab.push('life', 0);
    const client = await Client.open(`http://127.0.0.1:${lab.port}`, { channels: ['life'] });
    await lab.push('life', 'in a container');
    // Long enough for a server that takes the pid 1 for "my master has gone".
    await sleep(2000);
    await lab.push('life', 'still');
    assert.deepEqual(await client.messages('life', 2), ['in a container', 'still']);
    const [hub] = lab.hubs();
    signal(hub.pid, 'SIGTERM');
    assert.ok(await ends(hub.pid));
    await until(async () => look(hub.pid) === undefined, 'the first process reaps it', 30000, () => look(hub.pid));
    assert.equal((await client.closed).code, 1001);
  });
});

/** The listening TCP sockets of a port at 127.0.0.1: at another address the tests hold it themselves. */
function tcpListeners(port) {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  return readFileSync('/proc/net/tcp', 'utf8').split('\n').map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[1] === `0100007F:${hex}` && fields[3] === '0A').map((fields) => `socket:[${fields[9]}]`);
}
