// Several masters of PHP at one realtime.socket: they share a server, and it lives as long as the last of them. Also those of php-cgi.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, describe } from 'node:test';
import { sleep } from '../browser/support.mjs';
import { Client } from './client.mjs';
import { identity, Lab, range, testsOf, user } from './lab.mjs';
import { alive, descriptors, ends, signal } from './proc.mjs';
import { Cgi, Fpm, Nginx, shared } from './servers.mjs';

const STATIC = { pm: 'static', 'pm.max_children': 2 };
let lab;

const test = testsOf(() => lab);
afterEach(async () => {
  await lab?.end();
  lab = undefined;
});

const hubAddress = () => `http://127.0.0.1:${lab.port}`;

describe('two masters of PHP-FPM', () => {
  /** One for /push.php, one for /shop.php, both of which are at the socket of php.ini. */
  async function two({ pool = '', settings = {} } = {}) {
    lab = await Lab.make({ ini: shared, settings: { linger: '0.5', drain: 0.5, ...settings } });
    lab.fpm = new Fpm(lab, { pool: STATIC });
    const second = new Fpm(lab, { name: 'second', pools: ['shop.conf'], pool: { shop: STATIC } });
    // The documented file has a socket of its own in these lines.
    const file = `${second.pools}/shop.conf`;
    writeFileSync(file, `${readFileSync(file, 'utf8').replace(/^php_admin_value.*\n/gm, '')}${pool}\n`);
    lab.nginx = new Nginx(lab, {
      extra: `location = /shop.php { include fastcgi.conf; fastcgi_param SCRIPT_FILENAME $document_root/push.php; fastcgi_pass unix:${second.sockets[0]}; }`,
    });
    await lab.fpm.start();
    await lab.nginx.start();
    return second;
  }

  test('share a server, which ends with the last of them', async () => {
    const second = await two();
    await lab.push('both', 'first');
    const hub = await lab.hub();
    const client = await Client.open(hubAddress(), { channels: ['both'] });
    await second.start();
    const pushes = [await lab.push('both', 0), await lab.push('both', 1, '/shop.php')];
    assert.notEqual(pushes[0].pid, pushes[1].pid);
    // The one that started it goes.
    await lab.fpm.stop();
    await sleep(1500);
    assert.ok(alive(hub.pid), 'it lives for the second');
    await lab.push('both', 2, '/shop.php');
    // It comes back, and the second goes.
    await lab.fpm.start();
    await lab.push('both', 3);
    await second.stop();
    await sleep(1500);
    assert.ok(alive(hub.pid), 'it lives for the first, which was started anew');
    await lab.push('both', 4);
    assert.deepEqual(await client.messages('both', 5), range(5));
    assert.equal(client.over, undefined);
    assert.deepEqual(lab.hubs().map(({ pid }) => pid), [hub.pid]);
    await lab.fpm.stop();
    assert.ok(await ends(hub.pid, 30000), 'it ends with the last');
    assert.equal((await client.closed).code, 1001);
  });

  test('that pushes nothing does not keep it', async () => {
    const second = await two();
    await second.start();
    await lab.push('both', 1);
    const hub = await lab.hub();
    await lab.fpm.stop();
    assert.ok(await ends(hub.pid, 30000), 'no worker of the second has ever come');
    // And the second starts one of its own when it is needed.
    await lab.push('both', 2, '/shop.php');
    assert.notEqual((await lab.hub()).pid, hub.pid);
  });

  test('with different settings: the younger master\'s are in force, there is one takeover, and no quarrel', async () => {
    const second = await two({ pool: 'php_admin_value[realtime.ping_interval] = 17' });
    await lab.push('both', 'first');
    const hub = await lab.hub();
    await second.start();
    await lab.get('/shop.php?channel=both&data=1');
    assert.ok(await ends(hub.pid, 30000), 'the second brings its own server');
    const next = await lab.hub();
    for (let i = 0; i < 10; i++) await lab.push('both', i, i % 2 ? '/shop.php' : '/push.php');
    await sleep(500);
    assert.deepEqual(lab.hubs().map(({ pid }) => pid), [next.pid], 'the first does not take it back');
    const client = await Client.open(hubAddress());
    assert.equal(client.frames[0].ping, 17);
    // The first is still one of its masters.
    await second.stop();
    await sleep(1500);
    assert.ok(alive(next.pid));
    await lab.fpm.stop();
    assert.ok(await ends(next.pid, 30000));
  });
});

describe('php-cgi', () => {
  const missing = () => spawnSync(Cgi.binary, ['-v']).error && `${Cgi.binary} is not installed`;

  test('as a FastCGI server: its workers share a server, which outlives them and ends with their master', async (t) => {
    if (missing()) return t.skip(missing());
    lab = await Lab.make({ ini: shared, settings: { linger: '0.5' } });
    lab.cgi = await new Cgi(lab, { workers: 3, requests: 4 }).start();
    lab.nginx = await new Nginx(lab).start();
    await lab.push('cgi', -1);
    const hub = await lab.hub();
    const client = await Client.open(lab.hubUrl, { channels: ['cgi'] });
    const pids = new Set();
    for (const number of range(30)) pids.add((await lab.push('cgi', number)).pid);
    assert.ok(pids.size >= 7, `${pids.size} workers`);
    assert.deepEqual(await client.messages('cgi', 30), range(30));
    assert.deepEqual(lab.hubs().map(({ pid }) => pid), [hub.pid]);
    await lab.noZombies();
    await lab.cgi.stop();
    assert.ok(await ends(hub.pid, 30000), 'it ends with the master');
    assert.equal((await client.closed).code, 1001);
  });

  test('as a FastCGI server it runs realtime.handler', async (t) => {
    if (missing()) return t.skip(missing());
    lab = await Lab.make({ ini: shared, handler: true });
    lab.put('realtime.php', `<?php
      rt_on_message(fn ($m) => ['sapi' => PHP_SAPI, 'data' => $m->data]);
      rt_run();`);
    lab.cgi = await new Cgi(lab, { workers: 6 }).start();
    lab.nginx = await new Nginx(lab).start();
    await lab.push('cgi', 0);
    const client = await Client.open(lab.hubUrl, { channels: ['cgi'] });
    for (const number of range(5)) assert.deepEqual(await client.publish('cgi', number), { sapi: 'cgi-fcgi', data: number });
  });

  test('as a CGI program: each request is a process, and none waits for the server that it has started', async (t) => {
    if (missing()) return t.skip(missing());
    lab = await Lab.make({ ini: shared, settings: { linger: '0.5' } });
    const script = `${lab.site}/public/push.php`;
    // What a web server does; it is the parent of them all.
    const server = `
      const { spawn } = require('node:child_process');
      process.stdin.on('data', (lines) => {
        for (const data of String(lines).trim().split('\\n')) {
          const child = spawn(${JSON.stringify(Cgi.binary)}, ['-c', ${JSON.stringify(lab.file('php.ini'))}], {
            stdio: ['ignore', 'pipe', 'pipe'],
            env: { PATH: process.env.PATH, PHP_INI_SCAN_DIR: '', GATEWAY_INTERFACE: 'CGI/1.1', REDIRECT_STATUS: '200', REQUEST_METHOD: 'GET',
              SCRIPT_FILENAME: ${JSON.stringify(script)}, SCRIPT_NAME: '/push.php', QUERY_STRING: 'channel=cgi&data=' + data },
          });
          let text = '';
          for (const stream of [child.stdout, child.stderr]) stream.on('data', (more) => { text += more; });
          // When nobody has its output open any more.
          child.on('close', () => console.log(JSON.stringify(text)));
        }
      });`;
    const parent = spawn(process.execPath, ['-e', server], { stdio: ['pipe', 'pipe', 'inherit'], env: lab.environment(), cwd: lab.site, ...identity(user) });
    lab.pids.add(parent.pid);
    const answers = (async function* lines() {
      let text = '';
      for await (const more of parent.stdout.setEncoding('utf8')) {
        text += more;
        for (let end; (end = text.indexOf('\n')) >= 0; text = text.slice(end + 1)) yield JSON.parse(text.slice(0, end));
      }
    })();
    const request = async (number) => {
      parent.stdin.write(`${number}\n`);
      const { value } = await answers.next();
      assert.match(value, /^[^]*Content-Type: application\/json[^]*"id":"[\da-f]{8}-\d+"/i);
    };
    const started = Date.now();
    await request(-1);
    assert.ok(Date.now() - started < 20000, 'its output ends with it');
    const hub = await lab.hub();
    const client = await Client.open(hubAddress(), { channels: ['cgi'] });
    for (const number of range(5)) await request(number);
    assert.deepEqual(await client.messages('cgi', 5), range(5));
    assert.deepEqual(lab.hubs().map(({ pid }) => pid), [hub.pid]);
    assert.ok(!descriptors(hub.pid).some(({ is }) => is.startsWith('pipe:')), 'it holds no pipe of the web server');
    signal(parent.pid, 'SIGKILL');
    assert.ok(await ends(hub.pid, 30000), 'it ends with the web server');
    assert.equal((await client.closed).code, 1001);
  });
});
