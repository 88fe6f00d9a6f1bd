// Our client and tokens: where it gets them, how it sends and refreshes them, and what happens without.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import http from 'node:http';
import { after, afterEach, before, describe, test as run } from 'node:test';
import WebSocket from 'ws';
import { Realtime } from '../../php/client/realtime.js';
import { Program, sleep, until } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const secret = 'a-secret-of-the-tests-that-is-long-enough';
const open = [];
let server;

/** A token as any issuer with the secret makes it. */
function token(claims, ttl = 60) {
  const now = Date.now() / 1000;
  const text = [{ alg: 'HS256', typ: 'JWT' }, { iat: now, exp: now + ttl, ...claims }]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

function client(options) {
  const rt = new Realtime(server.url, { WebSocket, minDelay: 50, maxDelay: 400, ...options });
  rt.log = [];
  for (const event of ['open', 'close', 'error', 'gap']) {
    rt.on(event, (info) => rt.log.push({ event, ...info, code: info.code }));
  }
  rt.times = (event) => rt.log.filter((entry) => entry.event === event).length;
  open.push(rt);
  return rt;
}

async function collect(rt, channel) {
  const got = [];
  await rt.subscribe(channel, (data) => got.push(data)).ready;
  return got;
}

before(async () => {
  server = await new Program('tests/browser/server.php', { 'realtime.secret': secret, 'realtime.ping_interval': 5 }).start();
});
after(() => server.end());
afterEach(() => {
  for (const rt of open.splice(0)) rt.close();
});

// At the same time, since it takes long: a fresh token is asked for when a fifth of the time is left, and that is to be enough.
test('comes with a token, and with a fresh one before that expires', async () => {
  const comes = async (kind) => {
    let asked = 0;
    const claims = { sub: `${kind}-ada`, channels: [`private-${kind}`], publish: [`private-${kind}`] };
    const rt = client({ transports: [kind], token: async () => token({ ...claims, n: asked++ }, 12) });
    const got = await collect(rt, `private-${kind}`);
    assert.equal(await server.php(`echo rt_connections('private-${kind}')[0]->user;`), `${kind}-ada`);
    const other = client({ transports: [kind], token: () => token(claims) });
    await collect(other, `private-${kind}`);
    // Two tokens' time, and none of it lost.
    for (let i = 0; i < 22; i++) {
      await sleep(1000);
      await other.publish(`private-${kind}`, i);
    }
    await until(() => got.length === 22, 'all of them', 30000, () => [got, rt.log]);
    assert.deepEqual(got, Array.from({ length: 22 }, (_, i) => i));
    assert.ok(asked > 2, `${kind} asked ${asked} times`);
    assert.deepEqual([rt.times('open'), rt.times('close'), rt.times('error')], [1, 0, 0], JSON.stringify(rt.log));
  };
  await Promise.all(['ws', 'sse', 'poll'].map(comes));
});

for (const kind of ['ws', 'sse', 'poll']) {
  describe(kind, () => {
    test('without the right token a closed channel stays closed', async () => {
      const rt = client({ transports: [kind], token: () => token({ channels: 'private-mine' }) });
      await assert.rejects(rt.subscribe('private-yours', () => {}).ready, { code: 'forbidden' });
      await collect(rt, 'private-mine');
      await collect(client({ transports: [kind], token: () => null }), 'open-to-all');
    });

    test('is closed when its token is revoked, and comes back with a new one', async () => {
      const rt = client({ transports: [kind], token: () => token({ sub: `${kind}-bob`, channels: '*' }) });
      const got = await collect(rt, `private-${kind}-r`);
      // A session of polls that the client has left for another waits for some seconds yet.
      assert.ok(await server.php(`echo rt_revoke('${kind}-bob');`) >= 1);
      await until(() => rt.times('open') >= 2, 'a second connection', 30000, () => rt.log);
      await server.broadcast(`private-${kind}-r`, 'back');
      await until(() => got.length, 'a message', 30000, () => rt.log);
    });
  });
}

test('asks a URL', async () => {
  let healthy = false;
  const asked = [];
  const issuer = http.createServer(({ url }, answer) => {
    asked.push(url);
    answer.writeHead(healthy ? 200 : 503).end(JSON.stringify({ token: token({ channels: 'private-url' }) }));
    healthy = true;
  });
  await new Promise((done) => issuer.listen(0, '127.0.0.1', done));
  const rt = client({ token: `http://127.0.0.1:${issuer.address().port}/token.php?for=me` });
  try {
    await collect(rt, 'private-url');
    assert.equal(asked[0], '/token.php?for=me');
    assert.ok(rt.log.some(({ event, code }) => event === 'error' && code === 'http'), JSON.stringify(rt.log));
  } finally {
    rt.close();
    issuer.close();
  }
});

test('what is no token is refused, on every transport, and said', async () => {
  const rt = client({ token: () => 'nonsense' });
  await until(() => rt.log.filter(({ code }) => code === 'bad_token').length >= 2, 'two words of it', 30000, () => rt.log);
  assert.equal(rt.times('open'), 0);
});

test('asks no more after close()', async () => {
  let asked = 0;
  const rt = client({ token: () => token({ n: asked++ }, 3) });
  await until(() => rt.state === 'open', 'a connection');
  rt.close();
  const before = asked;
  await sleep(2500);
  assert.equal(asked, before);
});
