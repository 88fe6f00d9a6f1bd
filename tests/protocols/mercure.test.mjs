// Mercure's own clients against the real server: npm's eventsource, a browser's EventSource, and curl as the publisher.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test as run } from 'node:test';
import { promisify } from 'node:util';
import { EventSource, launch, Program, sleep, until, WebSocket, Wire } from '../browser/support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const curl = (...args) => promisify(execFile)('curl', ['-sS', '--max-time', '60', ...args]).then(({ stdout }) => stdout);

const PUBLISHERS = 'a-key-of-publishers-that-is-long-enough';
const SUBSCRIBERS = 'a-key-of-subscribers-that-is-long-enough';
const HUB = '.well-known/mercure';
const ORDER = 'https://shop.example/orders/1';

function jwt(key, claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`;
}
const publisher = jwt(PUBLISHERS, { mercure: { publish: ['*'] } });
const subscriber = (...topics) => jwt(SUBSCRIBERS, { mercure: { subscribe: topics, payload: { name: 'ada' } } });

const server = (settings = {}) => new Program('tests/protocols/mercure.php', {
  'realtime.mercure_publisher_key': `"${PUBLISHERS}"`,
  'realtime.mercure_subscriber_key': `"${SUBSCRIBERS}"`,
  'realtime.mercure_anonymous': 1,
  'realtime.mercure_subscriptions': 1,
  'realtime.retry': 0.05,
  ...settings,
}).start();

/** Posts an update as the specification's own example does. Returns its id. */
const publish = (where, fields, token = publisher) => curl('--fail-with-body', `${where.url}${HUB}`,
  '-H', `Authorization: Bearer ${token}`, ...fields.flatMap((field) => ['--data-urlencode', field]));

let program;
const open = [];

/** An EventSource that collects what comes. */
async function subscribe(topics, { where = program, token, query = '', events = [], ...more } = {}) {
  const url = new URL(`${where.url}${HUB}?${query}`);
  for (const topic of topics) url.searchParams.append('topic', topic);
  const heads = [];
  let begun;
  const beginning = new Promise((done) => { begun = done; });
  const source = new EventSource(url, {
    fetch: async (input, init) => {
      const response = await fetch(input, { ...init, headers: { ...init.headers, ...(token && { Authorization: `Bearer ${token}` }), ...more.headers } });
      heads.push(response.headers);
      const { url: from, status, redirected, headers } = response;
      const body = response.body?.pipeThrough(new TransformStream({
        transform(chunk, to) {
          begun();
          to.enqueue(chunk);
        },
      }));
      return { body, url: from, status, redirected, headers };
    },
  });
  open.push(source);
  const got = [];
  for (const name of ['message', ...events]) {
    source.addEventListener(name, ({ type, data, lastEventId }) => got.push({ type, data, id: lastEventId }));
  }
  await until(() => source.readyState === 1, 'an open EventSource');
  await beginning; // the head comes a little before the subscription
  await sleep(30);
  return Object.assign(got, { source, heads });
}

/** A wire to the server that the test can cut; closed after it. */
async function through(where) {
  const wire = await new Wire(where.port).open();
  open.push(wire);
  return wire;
}

const all = async (got, count) => {
  await until(() => got.length >= count, `${count} updates`, 30000, () => [...got]);
  await sleep(60); // for one too many to show
  assert.equal(got.length, count, JSON.stringify(got));
};

before(async () => { program = await server(); });
after(() => program.end());
afterEach(() => { for (const one of open.splice(0)) one.close(); });

describe('eventsource', () => {
  test('an update that curl posts arrives, and its id is the answer', async () => {
    const got = await subscribe([ORDER], { events: ['paid'] });
    const first = await publish(program, [`topic=${ORDER}`, 'data={"status": "paid"}']);
    assert.match(first, /^urn:uuid:[0-9a-f-]{36}$/);
    const second = await publish(program, [`topic=${ORDER}`, 'data=two\nlines', 'type=paid', 'id=urn:x:1']);
    assert.equal(second, 'urn:x:1');
    await all(got, 2);
    assert.deepEqual([...got], [
      { type: 'message', data: '{"status": "paid"}', id: first },
      { type: 'paid', data: 'two\nlines', id: 'urn:x:1' },
    ]);
  });

  test('rt_broadcast() is an update, and an update is a message of the native client', async () => {
    const got = await subscribe([ORDER], { events: ['said'] });
    const native = new WebSocket(`${program.url.replace('http', 'ws')}ws`);
    open.push(native);
    const messages = [];
    native.on('message', (text) => messages.push(JSON.parse(text)));
    native.on('open', () => native.send(JSON.stringify({ type: 'subscribe', channel: ORDER })));
    await until(() => messages.some(({ type }) => type === 'subscribed'), 'a native subscription');
    await program.broadcast(ORDER, { id: 42, text: 'ä\n' });
    await publish(program, [`topic=${ORDER}`, 'data=<b>html</b>']);
    native.send(JSON.stringify({ type: 'publish', channel: ORDER, event: 'said', data: 'hello' }));
    await all(got, 3);
    assert.deepEqual(got.map(({ data }) => data), ['{"id":42,"text":"\\u00e4\\n"}', '<b>html</b>', 'hello']);
    const data = () => messages.filter(({ type }) => type === 'message').map((message) => message.data);
    await until(() => data().length >= 2, 'both at the native client', 30000, () => messages);
    assert.deepEqual(data(), [{ id: 42, text: 'ä\n' }, '<b>html</b>']);
  });

  test('a cut wire loses nothing', async () => {
    const wire = await through(program);
    const got = await subscribe(['https://b.example/{id}', 'other'], { where: wire });
    await publish(program, ['topic=https://b.example/1', 'data=1']);
    await all(got, 1);
    for (let round = 1; round < 4; round++) {
      wire.down = true;
      wire.cut();
      await publish(program, ['topic=https://b.example/2', `data=${2 * round}`]);
      await publish(program, ['topic=other', `data=${2 * round + 1}`]);
      await publish(program, ['topic=third', 'data=no']);
      wire.down = false;
      await all(got, 2 * round + 1);
    }
    assert.deepEqual(got.map(({ data }) => Number(data)), [1, 2, 3, 4, 5, 6, 7]);
    assert.equal(got.heads.at(-1).get('last-event-id'), got.at(-3).id);
  });

  test('the past, from an update on or from the beginning', async () => {
    const topic = 'https://b.example/past';
    const ids = [];
    for (const data of [1, 2, 3]) ids.push(await publish(program, [`topic=${topic}`, `data=${data}`]));
    const native = await program.broadcast(topic, 4);
    const from = async (since, count) => {
      const got = await subscribe([topic], { query: `lastEventID=${encodeURIComponent(since)}` });
      await all(got, count);
      return [got.heads[0].get('last-event-id'), got.map(({ data }) => data).join('')];
    };
    assert.deepEqual(await from('earliest', 4), ['earliest', '1234']);
    assert.deepEqual(await from(ids[1], 2), [ids[1], '34']);
    assert.deepEqual(await from('urn:x:unknown', 4), ['earliest', '1234']);
    assert.deepEqual(await from(native, 0), [native, ''], 'what rt_broadcast() returns is a place, too');
  });

  test('private updates are for those whose token covers a topic', async () => {
    const topic = 'https://b.example/mine';
    const mine = await subscribe([topic], { token: subscriber('https://b.example/{id}') });
    const others = [
      await subscribe([topic], { token: subscriber('https://c.example/{id}') }),
      await subscribe([topic, '*']),
    ];
    await publish(program, [`topic=${topic}`, 'data=secret', 'private=on']);
    await publish(program, [`topic=${topic}`, 'data=open']);
    await all(mine, 2);
    for (const got of others) {
      await all(got, 1);
      assert.equal(got[0].data, 'open');
    }
  });

  test('a token in the query or in the cookie', async () => {
    const closed = await server({ 'realtime.mercure_anonymous': 0 });
    try {
      const status = async (query, headers = {}) => {
        const response = await fetch(`${closed.url}${HUB}?topic=a${query}`, { headers });
        await response.body.cancel();
        return response.status;
      };
      const token = subscriber('a');
      assert.equal(await status(''), 401);
      assert.equal(await status(`&authorization=${publisher}`), 401);
      assert.equal(await status(`&authorization=${token}`), 200);
      assert.equal(await status('', { Cookie: `mercureAuthorization=${token}` }), 200);
      const got = await subscribe(['a'], { where: closed, query: `authorization=${token}` });
      await publish(closed, ['topic=a', 'private=', 'data=1']);
      await all(got, 1);
    } finally {
      await closed.end();
    }
  });

  test('a stream ends with its token', async () => {
    const token = jwt(SUBSCRIBERS, { exp: Date.now() / 1000 + 8, mercure: { subscribe: ['a'] } });
    const got = await subscribe(['a'], { token });
    let closed;
    got.source.addEventListener('error', ({ code }) => { closed = code; });
    await until(() => closed === 401, 'the end, and no way back');
    assert.equal(got.source.readyState, 2);
  });

  test('who is subscribed is told and listed', async () => {
    const base = '/.well-known/mercure/subscriptions';
    const token = subscriber(base, `${base}{/topic}{/subscriber}`);
    // Nor of the end of those before.
    await until(async () => await program.php('echo count(rt_connections());') === '0', 'nobody');
    const told = await subscribe([`${base}{/topic}{/subscriber}`], { token });
    const one = await subscribe(['https://b.example/{id}'], { token });
    await all(told, 1);
    const document = JSON.parse(told[0].data);
    assert.equal(document.topic, 'https://b.example/{id}');
    assert.deepEqual(document.payload, { name: 'ada' });
    const list = JSON.parse(await curl(`${program.url}${base.slice(1)}`, '-H', `Authorization: Bearer ${token}`));
    assert.equal(list.lastEventID, told[0].id);
    assert.deepEqual(list.subscriptions.map(({ topic }) => topic).sort(), [`${base}{/topic}{/subscriber}`, 'https://b.example/{id}']);
    one.source.close();
    await all(told, 2);
    const gone = JSON.parse(told[1].data);
    assert.deepEqual([gone.id, gone.active], [document.id, false]);
  });
});

describe('publishers', () => {
  test('are told what is wrong', async () => {
    const status = async (fields, token = publisher) => {
      const body = await publish(program, fields, token).catch((error) => error.stdout);
      return JSON.parse(body).error.code;
    };
    assert.equal(await status(['topic=a'], subscriber('*')), 'bad_token');
    assert.equal(await status(['topic=a'], jwt(PUBLISHERS, { mercure: { publish: ['b'] } })), 'forbidden');
    assert.equal(await status(['data=1']), 'bad_form');
    assert.equal(await status(['topic=/.well-known/mercure/subscriptions/a/b']), 'forbidden');
    assert.equal(await status(['topic=a', `data=${'x'.repeat(70000)}`]), 'too_large');
  });

  test('are not slowed down, however fast they are', async () => {
    const fast = await server({ 'realtime.rate_messages': 1, 'realtime.history_size': 1000 });
    try {
      const got = await subscribe(['a'], { where: fast });
      const begin = Date.now();
      for (let n = 0; n < 60; n++) {
        const body = new URLSearchParams({ topic: 'a', data: n });
        const answer = await fetch(`${fast.url}${HUB}`, { method: 'POST', body, headers: { Authorization: `Bearer ${publisher}` } });
        assert.equal(answer.status, 200);
        await answer.text();
      }
      await all(got, 60);
      // A client would have to wait for 50 seconds.
      assert.ok(Date.now() - begin < 45000);
    } finally {
      await fast.end();
    }
  });
});

describe('Chromium', () => {
  let browser;
  let docroot;
  let site;
  before(async () => {
    docroot = mkdtempSync(path.join(os.tmpdir(), 'realtime-mercure-'));
    writeFileSync(path.join(docroot, 'index.html'), '<!doctype html><title>Mercure</title><p id="out"></p>');
    site = await server({ 'realtime.docroot': docroot, 'realtime.mercure_anonymous': 0 });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await site?.end();
    rmSync(docroot, { recursive: true, force: true });
  });

  /** A page with the cookie that notes what its EventSource gets. */
  async function pageOn(url, topic) {
    const page = await browser.newPage();
    open.push(page);
    await page.goto(url);
    await page.evaluate(([cookie, hub, name]) => {
      document.cookie = `mercureAuthorization=${cookie}; path=/.well-known/mercure`;
      window.got = [];
      const url = new URL(hub, location);
      url.searchParams.append('topic', name);
      window.source = new EventSource(url, { withCredentials: true });
      window.source.onmessage = ({ data, lastEventId }) => window.got.push([data, lastEventId]);
      return new Promise((done) => { window.source.onopen = done; });
    }, [subscriber(topic), `/${HUB}`, topic]);
    // The head, of which a page knows, comes a little before the subscription.
    const list = async () => JSON.parse(await curl(`${site.url}${HUB}/subscriptions`, '-H', `Authorization: Bearer ${subscriber('*')}`));
    await until(async () => (await list()).subscriptions.some((one) => one.topic === topic), 'the subscription', 30000, list);
    return (count) => until(async () => {
      const list = await page.evaluate(() => window.got);
      return list.length >= count && list;
    }, `${count} updates in the page`);
  }

  test('a page with the cookie gets what is private, also after a cut', async () => {
    const got = await pageOn(site.url, 'https://b.example/{id}');
    const first = await publish(site, ['topic=https://b.example/1', 'data=one', 'private=on']);
    await publish(site, ['topic=https://c.example/1', 'data=no', 'private=on']);
    assert.deepEqual(await got(1), [['one', first]]);
    // The server closes it; the browser comes back by itself and says where it was.
    await site.php("rt_close(rt_connections('')[0]->id ?? '', 1000);").catch(() => {});
    await site.php('foreach (rt_connections() as $c) { rt_close($c->id, 1000); }');
    await site.broadcast('https://b.example/2', { two: 2 });
    const list = await got(2);
    assert.equal(list[1][0], '{"two":2}');
  });

  // As the standard wants it. npm's eventsource passes over an id that comes without data, and so has none here.
  test('a page that is cut off before its first update loses nothing either', async () => {
    const wire = await through(site);
    let told = false;
    wire.alter = (bytes) => {
      told ||= /\nid: ?\S/.test(bytes.toString('latin1'));
      return bytes;
    };
    const got = await pageOn(wire.url, 'https://b.example/cut');
    await until(() => told, 'where it stands');
    await sleep(1000); // until it has read that, which it shows nowhere
    wire.down = true;
    wire.cut();
    await publish(site, ['topic=https://b.example/cut', 'data=1']);
    wire.down = false;
    assert.equal((await got(1))[0][0], '1');
  });
});

test('a stream on which nothing is said has a heartbeat each realtime.ping_interval', async () => {
  const quick = await server({ 'realtime.ping_interval': 1 });
  const stop = new AbortController();
  try {
    const begun = Date.now();
    const response = await fetch(`${quick.url}${HUB}?topic=${ORDER}`, { signal: stop.signal });
    const beats = [];
    let text = '';
    for await (const chunk of response.body) {
      text += Buffer.from(chunk);
      if (/(^|\n):\n\n$/.test(text)) beats.push(Date.now());
      if (beats.length === 3) break;
    }
    // One may be late, and the next in time.
    assert.ok(beats[2] - begun >= 2000 && beats[2] - begun < 12000, `${beats.map((at) => at - begun)}`);
    // Comments, which are no events.
    assert.deepEqual(text.split('\n').filter((line) => line.startsWith('data')), []);
  } finally {
    stop.abort();
    await quick.end();
  }
});
