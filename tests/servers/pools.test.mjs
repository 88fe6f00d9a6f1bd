// Who reaches whom: every kind of pool, over TCP and over a Unix socket; two pools that share a server and two that do not;
// PHP on the command line; every transport through nginx.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { sleep, until } from '../browser/support.mjs';
import { Client, library } from './client.mjs';
import { Lab, account, isRoot, user } from './lab.mjs';
import { look, uid } from './proc.mjs';
import { Fpm, Nginx, shared, site } from './servers.mjs';

const POOLS = {
  static: { pm: 'static', 'pm.max_children': 4 },
  dynamic: { pm: 'dynamic' },
  ondemand: { pm: 'ondemand', 'pm.process_idle_timeout': '1s' },
};

for (const [kind, pool] of Object.entries(POOLS)) {
  for (const unix of [false, true]) {
    test(`pm = ${kind}, nginx over ${unix ? 'a Unix socket' : 'TCP'}: a page's broadcast reaches a client, the command line's too`, { timeout: 120000 }, async () => {
      const lab = await site({ lab: { unix }, fpm: { pool } });
      try {
        assert.deepEqual(lab.hubs(), [], 'no server before the first request');
        assert.equal((await lab.get('/do.php?what=pid')).status, 200);
        const hub = await lab.hub();
        assert.equal(uid(hub.pid), user.uid, 'the server runs as the pool does');
        const client = await Client.open(lab.hubUrl, { channels: ['news'] });
        const { id } = await lab.push('news', { text: 'é', n: 1.5 });
        assert.match(id, /^[\da-f]{8}-\d+$/);
        await lab.php('rt_broadcast("news", "from the command line");');
        assert.deepEqual(await client.messages('news', 2), [{ text: 'é', n: 1.5 }, 'from the command line']);
        assert.equal(lab.hubs().length, 1, 'one server, whoever pushes');
        client.close();
      } catch (error) {
        error.message += `\n${lab.allLogs()}`;
        throw error;
      } finally {
        await lab.end();
      }
    });
  }
}

describe('one pool', () => {
  let lab;
  before(async () => { lab = await site({ fpm: { pool: POOLS.static } }); });
  after(() => lab?.end());

  test('requests at the same time start one server, and all of them are served', { timeout: 120000 }, async () => {
    const pushes = await Promise.all(Array.from({ length: 12 }, (_, i) => lab.push('start', i)));
    assert.equal(lab.hubs().length, 1);
    assert.ok(new Set(pushes.map(({ pid }) => pid)).size > 1, 'several workers took part');
    assert.equal(new Set(pushes.map(({ id }) => id)).size, 12);
    assert.equal(lab.log().match(/ERROR|WARN/g), null, lab.log());
  });

  test('every transport through nginx', { timeout: 120000 }, async () => {
    const got = {};
    const clients = ['ws', 'sse', 'poll'].map((kind) => {
      const rt = library(lab.hubUrl, { transports: [kind] });
      got[kind] = [];
      return { rt, ready: rt.subscribe('all', (data) => got[kind].push(data)).ready };
    });
    await Promise.all(clients.map(({ ready }) => ready));
    for (let i = 0; i < 5; i++) await lab.push('all', i);
    for (const kind of Object.keys(got)) {
      await until(() => got[kind].length >= 5, `five messages by ${kind}`, 30000, () => got);
      assert.deepEqual(got[kind], [0, 1, 2, 3, 4], kind);
    }
    for (const { rt } of clients) rt.close();
    assert.equal((await lab.get('/realtime/healthz')).status, 200);
    const script = await lab.get('/realtime/realtime.js');
    assert.match(script.headers.get('content-type'), /javascript/);
    // Passed on at once, not when nginx's buffer is full.
    const response = await fetch(`${lab.hubUrl}/sse?channel=slow`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (const end = Date.now() + 5000; !text.includes('id:') && Date.now() < end;) text += (await reader.read()).value;
    await lab.push('slow', 'now');
    while (!text.includes('now')) text += (await reader.read()).value;
    await reader.cancel();
  });

  test('PHP sees the client\'s own address behind nginx', { timeout: 120000 }, async () => {
    const client = await Client.open(lab.hubUrl, { channels: ['where'], headers: { 'X-Forwarded-For': '203.0.113.9, 198.51.100.7' } });
    const shown = JSON.parse(await lab.php('echo json_encode(array_map(fn ($c) => $c->ip, rt_connections("where")));'));
    // nginx adds its peer, which is this machine, a trusted proxy too: so the next one counts.
    assert.deepEqual(shown, ['198.51.100.7']);
    client.close();
  });

  test('functions that need a loop of their own say so in a page', { timeout: 120000 }, async () => {
    for (const what of ['listen', 'run']) {
      const { status } = await lab.get(`/do.php?what=${what}`);
      assert.equal(status, 500, what);
      assert.match(lab.log('php.log'), /Realtime\\Exception: .*rt_(listen|run)\(\)/);
    }
    assert.equal(lab.hubs().length, 1);
  });

  test('rt_stats() and the rest of the API from a page and from the command line', { timeout: 120000 }, async () => {
    const client = await Client.open(lab.hubUrl, { channels: ['api'] });
    const { json } = await lab.get('/do.php?what=stats');
    const hub = await lab.hub();
    assert.equal(json.pid, hub.pid);
    assert.notEqual(json.worker, hub.pid);
    assert.equal(json.address, lab.listen);
    const id = client.frames[0].connection;
    assert.equal(await lab.php(`var_export(rt_send("${id}", "to you"));`), 'true');
    assert.equal((await client.frame('message')).data, 'to you');
    assert.equal(await lab.php(`echo json_encode(rt_channels("ap*"));`), '{"api":1}');
    assert.equal(await lab.php(`var_export(rt_close("${id}", 4002, "enough"));`), 'true');
    assert.deepEqual(await client.closed, { code: 4002, reason: 'enough' });
    assert.match(await lab.php('ob_start(); phpinfo(INFO_MODULES); echo ob_get_clean();'), new RegExp(`${hub.pid}`));
  });

  test('another user\'s command line is refused with a clear word', { timeout: 120000, skip: !isRoot && 'needs root' }, async () => {
    const { code, stderr } = await lab.run(['-r', 'rt_broadcast("news", 1);'], { as: account('nobody') });
    assert.notEqual(code, 0);
    assert.match(stderr, /Realtime\\Exception: .*(belongs to another user|realtime\.socket_mode)/);
    // root may: a cron job of root's pushes too.
    await lab.php('rt_broadcast("news", "by root");', { as: account('root') });
  });
});

describe('two pools', () => {
  async function two(shopLines, options) {
    const lab = await Lab.make({ ini: shared, ...options });
    lab.fpm = await new Fpm(lab, { pools: ['www.conf', 'shop.conf'], pool: { www: POOLS.static, shop: shopLines } }).start();
    lab.nginx = await new Nginx(lab, {
      extra: `location = /shop.php { include fastcgi.conf; fastcgi_param SCRIPT_FILENAME $document_root/push.php; fastcgi_pass unix:${lab.fpm.sockets[1]}; }`,
    }).start();
    return lab;
  }

  test('that name the same realtime.socket share a server', { timeout: 120000 }, async () => {
    const lab = await two({});
    // The documented file keeps them apart: without its two lines they share what php.ini says.
    await lab.fpm.stop();
    const file = lab.file('pool.d/shop.conf');
    writeFileSync(file, readFileSync(file, 'utf8').replace(/^php_admin_value.*\n/gm, ''));
    await lab.fpm.start();
    try {
      await lab.push('shared', 'www first');
      const client = await Client.open(lab.hubUrl, { channels: ['shared'] });
      await lab.push('shared', 'from www');
      await lab.push('shared', 'from shop', '/shop.php');
      assert.deepEqual(await client.messages('shared', 2), ['from www', 'from shop']);
      assert.equal(lab.hubs().length, 1);
      client.close();
    } finally {
      await lab.end();
    }
  });

  for (const [what, handler, shop] of [['with a log each', false, { 'php_admin_value[error_log]': '/dev/null' }], ['and with realtime.handler', true, {}]]) {
    test(`that share a server, ${what}: a reload that changes nothing leaves it alone, whoever comes first`, { timeout: 120000 }, async () => {
      const lab = await two(shop, { handler, settings: { drain: 0 } });
      await lab.fpm.stop();
      const file = lab.file('pool.d/shop.conf');
      writeFileSync(file, readFileSync(file, 'utf8').replace(/^php_admin_value.realtime.*\n/gm, ''));
      await lab.fpm.start();
      try {
        await lab.push('shared', 0);
        await lab.push('shared', 0, '/shop.php');
        const hub = await lab.hub();
        const client = await Client.open(lab.hubUrl, { channels: ['shared'] });
        for (const [number, page] of ['/shop.php', '/push.php', '/shop.php'].entries()) {
          await lab.fpm.reload();
          await lab.push('shared', number, page);
          await sleep(300);
        }
        assert.deepEqual(await client.messages('shared', 3), [0, 1, 2]);
        assert.equal(client.over, undefined, lab.allLogs());
        assert.deepEqual(lab.hubs().map(({ pid }) => pid), [hub.pid]);
        client.close();
      } finally {
        await lab.end();
      }
    });
  }

  test('with settings of their own have a server each, and do not meet', { timeout: 120000 }, async () => {
    const lab = await two({});
    try {
      await lab.push('apart', 1);
      await lab.push('apart', 1, '/shop.php');
      await until(() => lab.hubs().length === 2, 'two servers', 30000, () => lab.allLogs());
      const www = await Client.open(`http://127.0.0.1:${lab.port}`, { channels: ['apart'] });
      const shop = await Client.open(`http://127.0.0.1:${lab.shopPort}`, { channels: ['apart'] });
      await lab.push('apart', 'www');
      await lab.push('apart', 'shop', '/shop.php');
      assert.deepEqual(await www.messages('apart', 1), ['www']);
      assert.deepEqual(await shop.messages('apart', 1), ['shop']);
      for (const client of [www, shop]) client.close();
      // What stands between the two for a moment has the worker's title, too.
      const adopted = () => lab.hubs().every(({ parent }) => !look(parent)?.title.startsWith('php-fpm: pool'));
      await until(adopted, 'that each server is no worker\'s child', 30000, () => lab.hubs());
    } finally {
      await lab.end();
    }
  });
});
