// realtime.handler: the pool runs tests/servers/site/realtime.php for what clients do. Its session, order, replies, state.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe } from 'node:test';
import { launch, root, sleep, until } from '../browser/support.mjs';
import { Client, library } from './client.mjs';
import { range, testsOf } from './lab.mjs';
import { site } from './servers.mjs';

const test = testsOf(() => lab);
let lab;

before(async () => {
  lab = await site({
    lab: { handler: true, settings: { handshake_timeout: 20 } },
    fpm: { pool: { pm: 'static', 'pm.max_children': 6 } },
    nginx: { extra: `
      location = /realtime.php { root SITE; include fastcgi.conf; fastcgi_pass unix:SOCKET; }
      location = /forged/realtime.php {
        include fastcgi.conf; fastcgi_param SCRIPT_FILENAME SITE/realtime.php; fastcgi_pass unix:SOCKET;
        fastcgi_param REALTIME_SECRET 00000000000000000000000000000000; fastcgi_param REALTIME_MARK 00000000000000000000000000000000;
      }` },
  });
  await lab.push('start', 1);
});
after(() => lab?.end());

const open = (options) => Client.open(lab.hubUrl, options);

/** A file for which handlers of the event `wait` wait; how many have begun to, and what lets them go on. */
function gate(name) {
  const file = path.join(lab.site, name);
  const begun = () => (existsSync(`${file}.begun`) ? readFileSync(`${file}.begun`, 'utf8').split('\n').length - 1 : 0);
  return { file, begun, open: () => lab.put(name, '') };
}

/** The cookie of a session that is logged in. */
async function login(name) {
  const { headers, json } = await lab.get('/login.php', { method: 'POST', body: new URLSearchParams({ user: name }) });
  assert.equal(json.user, name);
  return headers.getSetCookie?.()[0].split(';')[0] ?? headers.get('set-cookie').split(';')[0];
}

describe('in Chromium', () => {
  let browser;
  before(async () => { browser = await launch(); });
  after(() => browser?.close());

  test('the PHP session\'s login decides who may subscribe', async () => {
    const page = await (await browser.newContext()).newPage();
    const errors = [];
    page.on('pageerror', (error) => errors.push(error.message));
    await page.goto(`${lab.url}/`);
    assert.equal(await page.evaluate(() => window.connect('private-of-ada')), 'forbidden', 'nobody is logged in');
    await page.fill('[name=user]', 'ada');
    await page.click('button');
    await page.waitForFunction(() => document.querySelector('#who').textContent === 'ada');
    assert.equal(await page.evaluate(() => { window.rt.close(); return window.connect('private-of-ada'); }), 'subscribed');
    assert.equal(await page.evaluate(() => { window.rt.close(); return window.connect('private-of-bob'); }), 'forbidden', 'not somebody else\'s');
    await page.evaluate(() => { window.rt.close(); return window.connect('private-of-ada'); });
    await lab.push('private-of-ada', 'for Ada alone');
    await page.waitForFunction(() => document.body.innerText.includes('private-of-ada: "for Ada alone"'));
    const reply = await page.evaluate(() => window.rt.publish('x', null, { event: 'who' }));
    assert.equal(reply.user, 'ada');
    assert.match(reply.cookie.PHPSESSID, /^\w+$/);
    assert.match(reply.agent, /Chrome/);
    // A reload of PHP, and Ada's page notices nothing.
    const closes = () => page.evaluate(() => document.body.innerText.split('close ').length);
    const before = await closes();
    await lab.fpm.reload();
    await lab.push('private-of-ada', 'after the reload');
    await page.waitForFunction(() => document.body.innerText.includes('after the reload'));
    assert.equal(await closes(), before, 'the connection has stayed');
    const artifacts = process.env.ARTIFACTS || path.join(root, 'build/artifacts');
    mkdirSync(artifacts, { recursive: true });
    await page.screenshot({ path: path.join(artifacts, 'fpm-session.png') });
    assert.deepEqual(errors, []);
  });

  test('over Server-Sent Events and long polling it is the same session', async () => {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(`${lab.url}/`);
    await page.fill('[name=user]', 'eve');
    await page.click('button');
    await page.waitForFunction(() => document.querySelector('#who').textContent === 'eve');
    for (const kind of ['sse', 'poll']) {
      const said = await page.evaluate(async (transport) => {
        const { Realtime } = await import('/realtime/realtime.js');
        const rt = new Realtime('/realtime/', { transports: [transport] });
        const verdict = (channel) => rt.subscribe(channel, () => {}).ready.then(() => 'subscribed', (error) => error.code);
        const own = await verdict('private-of-eve');
        const other = await verdict('private-of-ada');
        const reply = await rt.publish('x', null, { event: 'who' });
        rt.close();
        return [own, other, reply.user];
      }, kind);
      assert.deepEqual(said, ['subscribed', 'forbidden', 'eve'], kind);
    }
    await context.close();
  });
});

describe('the request that a handler sees', () => {
  test('is the handshake: method, path, query, headers, cookies and the client\'s address', async () => {
    const cookie = await login('ada');
    const client = await open({ query: '?token=a%20b&list[]=1', headers: { Cookie: `${cookie}; theme=dark`, 'User-Agent': 'tester/1', Proxy: 'http://evil/' } });
    const who = await client.publish('x', null, 'who');
    assert.equal(who.user, 'ada');
    assert.equal(who.method, 'GET');
    assert.match(who.uri, /\/ws\?token=a%20b&list\[\]=1$/);
    assert.deepEqual(who.get, { token: 'a b', list: ['1'] });
    assert.equal(who.cookie.theme, 'dark');
    assert.equal(who.agent, 'tester/1');
    assert.equal(who.sapi, 'fpm-fcgi');
    assert.equal(who.id, client.frames[0].connection);
    assert.equal(who.proxy, null, 'no HTTP_PROXY from outside');
    client.close();
    const far = await open({ headers: { 'X-Forwarded-For': '203.0.113.5' } });
    const from = await far.publish('x', null, 'who');
    assert.deepEqual([from.ip, from.remote], ['203.0.113.5', '203.0.113.5']);
    far.close();
  });

  test('rt_on_open decides before the handshake is answered', async () => {
    for (const how of ['refuse', 'throw']) {
      const refused = new Client(lab.hubUrl, { query: `?open=${how}` });
      await assert.rejects(refused.opened, { status: 403 }, how);
    }
    const started = Date.now();
    const slow = await open({ query: '?open=slow' });
    assert.ok(Date.now() - started >= 1400, 'the handshake waited for it');
    slow.close();
    assert.equal((await lab.get('/realtime/sse?channel=a&open=refuse')).status, 403);
    assert.equal((await lab.get('/realtime/poll?channel=a&timeout=0&open=refuse')).status, 403);
  });

  test('rt_on_subscribe decides before the subscription', async () => {
    const client = await open({ channels: ['open-to-all'] });
    await assert.rejects(client.subscribe('closed-1'), { code: 'forbidden' });
    await assert.rejects(client.subscribe('private-of-ada'), { code: 'forbidden' });
    await lab.push('closed-1', 'not for you');
    await lab.push('open-to-all', 'for you');
    assert.deepEqual(await client.messages('open-to-all', 1), ['for you']);
    assert.deepEqual(client.data('closed-1'), []);
    client.close();
  });
});

describe('messages', () => {
  test('replies, broadcasts to others, sends to one', async () => {
    const [a, b] = [await open({ channels: ['room'] }), await open({ channels: ['room'] })];
    assert.deepEqual(await a.publish('room', { any: ['thing', 1.5, null] }), { any: ['thing', 1.5, null] });
    assert.equal(await a.publish('room', 'hello', 'say'), null);
    assert.deepEqual(await b.messages('room', 1), ['hello']);
    assert.deepEqual(a.data('room'), []);
    assert.deepEqual(await a.publish('room', null, 'send'), [true, true]);
    assert.equal((await a.frame('message', ({ event }) => event === 'direct')).data, 'for you');
    await a.frame('subscribed', ({ channel }) => channel === 'by-php');
    assert.equal(await a.publish('room', null, 'nothing'), null);
    a.send({ type: 'publish', channel: 'room', event: 'bye' });
    assert.deepEqual(await a.closed, { code: 4001, reason: 'as you wish' });
    // Without a WebSocket.
    const posted = await lab.get('/realtime/publish', {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ channel: 'room', data: [1, 2] }),
    });
    assert.deepEqual([posted.status, posted.json.data], [200, [1, 2]]);
    b.close();
  });

  test('of one connection are handled in order, of several at the same time', async () => {
    const clients = await Promise.all(range(5).map(() => open()));
    for (const n of range(40)) for (const client of clients) client.send({ type: 'publish', channel: 'x', event: 'append', data: n, ref: n });
    for (const client of clients) await client.answer(39, 30000);
    const lines = readFileSync(path.join(lab.site, 'order.txt'), 'utf8').trim().split('\n').map((line) => JSON.parse(line));
    for (const client of clients) {
      const id = client.frames[0].connection;
      assert.deepEqual(lines.filter(([who]) => who === id).map(([, n]) => n), range(40));
      assert.deepEqual(client.frames.filter(({ type }) => type === 'reply').map(({ ref }) => ref), range(40), 'and so are the replies');
      client.close();
    }
  });

  test('that queue while a handler runs come as one batch', async () => {
    const client = await open();
    const batch = gate('batch');
    client.send({ type: 'publish', channel: 'x', event: 'wait', data: batch.file });
    await until(batch.begun, 'the handler');
    for (const n of range(20)) client.send({ type: 'publish', channel: 'x', event: 'who', ref: n });
    // Answered when all that came before has been read.
    client.send({ type: 'ping', ref: 'read' });
    await client.answer('read');
    batch.open();
    await client.answer(19, 30000);
    const pids = client.frames.filter(({ type, data }) => type === 'reply' && data?.pid).map(({ data }) => data.pid);
    assert.equal(pids.length, 20);
    assert.equal(new Set(pids).size, 1, 'one request for all of them');
    client.close();
  });

  test('$connection->state is kept between two events, in the hub, and bounded', async () => {
    const [a, b] = [await open(), await open()];
    assert.deepEqual(await a.publish('x', 'one', 'count'), { count: 1, last: 'one' });
    await lab.fpm.reload();
    assert.deepEqual(await a.publish('x', 'two', 'count'), { count: 2, last: 'two' });
    assert.deepEqual(await b.publish('x', 'other', 'count'), { count: 1, last: 'other' }, 'each connection has its own');
    await assert.rejects(a.publish('x', 5000, 'big'), { code: 'handler_failed' });
    assert.match(lab.log('php.log'), /realtime\.state_size/);
    assert.equal(await a.publish('x', 1000, 'big'), 'kept');
    for (const client of [a, b]) client.close();
  });

  test('rt_on_close hears how a connection ended', async () => {
    const client = await open();
    const id = client.frames[0].connection;
    client.socket.close(3000, 'going home');
    const file = path.join(lab.site, 'closed.txt');
    await until(() => existsSync(file) && readFileSync(file, 'utf8').includes(`${id} 3000 going home`), 'the close handler');
  });

  test('what is pushed by pages does not pass through the handler', async () => {
    const [client, busy] = [await open({ channels: ['direct'] }), await open()];
    const direct = gate('direct');
    busy.send({ type: 'publish', channel: 'x', event: 'wait', data: direct.file, ref: 1 });
    await until(direct.begun, 'the handler');
    await lab.push('direct', 'now');
    await client.messages('direct', 1);
    assert.ok(!busy.frames.some(({ ref }) => ref === 1), 'it did not wait for the handler');
    direct.open();
    assert.equal((await busy.answer(1)).data, 'waited');
    for (const each of [client, busy]) each.close();
  });

  test('handlers leave workers for pages: handler_concurrency', async () => {
    const slow = await Promise.all(range(8).map(() => open()));
    const all = gate('all');
    for (const client of slow) client.send({ type: 'publish', channel: 'x', event: 'wait', data: all.file, ref: 1 });
    await until(() => all.begun() === 4, 'four handlers', 30000, all.begun);
    for (let i = 0; i < 5; i++) assert.equal((await lab.get('/do.php?what=pid')).status, 200);
    await sleep(500);
    assert.equal(all.begun(), 4, 'eight handlers take two turns of four');
    assert.ok(!slow.some(({ frames }) => frames.some(({ ref }) => ref === 1)), 'a page did not wait for them');
    all.open();
    for (const client of slow) {
      assert.equal((await client.answer(1)).data, 'waited');
      client.close();
    }
    assert.equal(all.begun(), 8);
  });
});

describe('nobody calls the handler from the web', () => {
  const body = Buffer.from('00000001', 'hex');
  const forgeries = [
    ['GET', {}], ['POST', {}], ['POST', { 'REALTIME_SECRET': '00000000000000000000000000000000' }],
    ['POST', { 'Realtime-Secret': '00000000000000000000000000000000', 'Realtime-Mark': '00' }], ['POST', { Secret: '' }],
  ];
  const places = { '/realtime.php': /this request is not from the realtime server/, '/forged/realtime.php': /wrong REALTIME_SECRET/ };
  for (const [place, words] of Object.entries(places)) {
    test(`by a request to ${place}`, async () => {
      const client = await open({ channels: ['forge'] });
      const before = (await lab.stats()).received;
      for (const [method, headers] of forgeries) {
        const { status, text } = await lab.get(place, {
          method, headers: { 'Content-Type': 'application/octet-stream', ...headers }, ...(method === 'POST' && { body }),
        });
        assert.equal(status, 500, text);
        assert.doesNotMatch(text, /[0-9a-f]{32}/, 'and shows no secret');
      }
      assert.match(lab.log('php.log'), words);
      assert.equal((await lab.stats()).received, before);
      assert.deepEqual(client.data(), []);
      client.close();
    });
  }
});

test('our library on the site: publish, a refused channel, what a page pushes', async () => {
  const rt = library(lab.hubUrl);
  const got = [];
  await rt.subscribe('lib', (data) => got.push(data)).ready;
  assert.deepEqual(await rt.publish('lib', [1], { event: 'echo' }), [1]);
  await assert.rejects(rt.subscribe('private-of-ada', () => {}).ready, { code: 'forbidden' });
  await lab.push('lib', 'pushed');
  await until(() => got.length, 'a message');
  rt.close();
});
