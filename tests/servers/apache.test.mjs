// Apache with mod_php in prefork processes and mod_proxy_wstunnel; and PHP's own server with several workers.

import assert from 'node:assert/strict';
import { afterEach, describe } from 'node:test';
import { until } from '../browser/support.mjs';
import { Client, library } from './client.mjs';
import { Lab, testsOf, user } from './lab.mjs';
import { descriptors, ends, signal, uid } from './proc.mjs';
import { Apache, CliServer, shared } from './servers.mjs';

let lab;

const test = testsOf(() => lab);
afterEach(async () => {
  await lab?.end();
  lab = undefined;
});

describe('Apache', () => {
  async function begin({ directives, ...options } = {}) {
    lab = await Lab.make({ ini: shared, ...options });
    lab.apache = await new Apache(lab, { directives }).start();
    await lab.push('apache', 0);
    return lab.hub();
  }

  test('a page\'s broadcast and the command line\'s reach every transport through it', async () => {
    const hub = await begin();
    assert.equal(uid(hub.pid), user.uid);
    const got = {};
    const clients = ['ws', 'sse', 'poll'].map((kind) => {
      const rt = library(lab.hubUrl, { transports: [kind] });
      got[kind] = [];
      return { rt, ready: rt.subscribe('apache', (data) => got[kind].push(data)).ready };
    });
    await Promise.all(clients.map(({ ready }) => ready));
    await lab.push('apache', 'page');
    await lab.php('rt_broadcast("apache", "cli");');
    for (const kind of Object.keys(got)) {
      await until(() => got[kind].length >= 2, `messages by ${kind}`, 30000, () => got);
      assert.deepEqual(got[kind], ['page', 'cli'], kind);
    }
    for (const { rt } of clients) rt.close();
    assert.equal(lab.hubs().length, 1);
  });

  test('processes come and go, a graceful restart too; its end is the server\'s', async () => {
    const hub = await begin({ directives: 'MaxConnectionsPerChild 3' });
    const client = await Client.open(`http://127.0.0.1:${lab.port}`, { channels: ['apache'] });
    const pids = new Set();
    const headers = { Connection: 'close' };
    for (let i = 0; i < 30; i++) pids.add((await lab.get('/push.php?channel=apache&data=1', { headers })).json.pid);
    assert.ok(pids.size > 3, `${pids.size} processes`);
    assert.equal((await client.messages('apache', 30)).length, 30);
    for (let i = 0; i < 3; i++) {
      const restarts = () => lab.log('apache.log').split('resuming normal operations').length;
      const before = restarts();
      const old = new Set(lab.apache.workers().map(({ pid }) => pid));
      signal(lab.apache.master, 'SIGUSR1');
      await until(() => restarts() > before, 'a restart', 30000, () => lab.log('apache.log'));
      await until(() => lab.apache.workers().some(({ pid }) => !old.has(pid)), 'new processes');
      await until(async () => (await lab.get('/push.php?channel=apache&data=2', { headers })).status === 200, 'an answer');
    }
    assert.equal(client.over, undefined);
    assert.deepEqual(lab.hubs().map(({ pid }) => pid), [hub.pid]);
    // Standard error is Apache's log, the last resort of the hub's.
    for (const { fd, is } of descriptors(hub.pid)) assert.doesNotMatch(is, fd === 2 ? /^pipe:/ : /apache\.log|^pipe:/, `descriptor ${fd}`);
    await lab.noZombies();
    await lab.apache.stop('SIGTERM');
    assert.ok(await ends(hub.pid, 30000));
    assert.equal((await client.closed).code, 1001);
  });

  test('SIGSEGV of a process, and a stop and start: no address in use', async () => {
    const hub = await begin();
    await lab.get('/do.php?what=crash').catch(() => {});
    await until(() => /Segmentation fault/.test(lab.log('apache.log')), 'a crash', 30000, () => lab.log('apache.log'));
    await lab.push('apache', 1);
    assert.deepEqual(lab.hubs().map(({ pid }) => pid), [hub.pid]);
    await lab.apache.stop('SIGTERM');
    await ends(hub.pid, 30000);
    await lab.apache.start();
    await lab.push('apache', 2);
    assert.notEqual((await lab.hub()).pid, hub.pid);
    assert.doesNotMatch(lab.log() + lab.log('php.log'), /in use|is taken|cannot listen/i);
  });

  test('rt_run() in a page says that it needs a loop of its own', async () => {
    await begin();
    assert.equal((await lab.get('/do.php?what=run')).status, 500);
    assert.match(lab.log('php.log'), /Realtime\\Exception/);
  });
});

describe('php -S with PHP_CLI_SERVER_WORKERS=4', () => {
  test('one server among the workers; every worker reaches it', async () => {
    lab = await Lab.make({ ini: shared });
    lab.cli = await new CliServer(lab).start();
    await lab.push('cli', 0);
    const client = await Client.open(`http://127.0.0.1:${lab.port}`, { channels: ['cli'] });
    const pushes = await Promise.all(Array.from({ length: 24 }, (_, i) => lab.push('cli', i)));
    assert.ok(new Set(pushes.map(({ pid }) => pid)).size > 1, 'several workers took part');
    const got = await client.messages('cli', 24);
    assert.deepEqual(got.sort((a, b) => a - b), Array.from({ length: 24 }, (_, i) => i));
    await lab.php('rt_broadcast("cli", "from the command line");');
    assert.equal((await client.messages('cli', 25)).at(-1), 'from the command line');
    client.close();
  });

  test('its end frees the address', async () => {
    lab = await Lab.make({ ini: shared });
    for (let i = 0; i < 3; i++) {
      lab.cli = await new CliServer(lab).start();
      await lab.push('cli', i);
      await lab.cli.stop();
    }
  });
});
