// TLS of the server's own, as a real browser and well-known clients see it, who trust the authority of this test and no other.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { after, before, describe, test as run } from 'node:test';
import WebSocket from 'ws';
import { Realtime } from '../../php/client/realtime.js';
import { Authority } from './certificates.mjs';
import { Program, launch, root, until } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const authority = new Authority();
let server;
let url;

before(async () => {
  const { cert, key } = authority.issue();
  server = await new Program('tests/browser/server.php', {
    'realtime.tls_cert': cert, 'realtime.tls_key': key, 'realtime.docroot': path.join(root, 'php/demo/public'),
  }).start();
  url = `https://localhost:${server.port}/`;
});
after(async () => {
  await server?.end();
  authority.remove();
});

describe('Chromium', () => {
  let browser;
  before(async () => {
    authority.trustedBy(server.home);
    browser = await launch({ HOME: server.home });
  });
  after(() => browser?.close());

  for (const kind of ['ws', 'sse', 'poll']) {
    test(`our client over ${kind}`, async () => {
      const page = await browser.newPage();
      await page.goto(url);
      await page.evaluate(async ([transport]) => {
        const { Realtime } = await import('/realtime.js');
        window.got = [];
        window.rt = new Realtime('/', { transports: [transport] });
        await window.rt.subscribe(`tls-${transport}`, (data) => window.got.push(data)).ready;
      }, [kind]);
      await server.broadcast(`tls-${kind}`, { n: 1 });
      await page.waitForFunction(() => window.got.length === 1);
      const echo = await page.evaluate((transport) => window.rt.publish(`tls-${transport}`, 'there', { event: 'echo' }), kind);
      assert.equal(echo.data, 'there');
      assert.equal(await page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol), 'http/1.1');
      await page.close();
    });
  }

  test('a bare WebSocket and a bare EventSource', async () => {
    const page = await browser.newPage();
    await page.goto(url);
    await page.evaluate(async () => {
      window.seen = {};
      const ws = new WebSocket(`wss://${location.host}/raw/bare`);
      ws.onmessage = ({ data }) => { window.seen.ws = data; };
      const es = new EventSource('/sse?channel=bare');
      es.onmessage = ({ data }) => { window.seen.es = data; };
      await Promise.all([ws, es].map((it) => new Promise((done) => { it.onopen = done; })));
    });
    await until(async () => await server.php('echo rt_channels("bare")["bare"] ?? 0;') === '2', 'both subscribed', 30000,
      async () => server.php('echo json_encode(rt_channels());'));
    await server.broadcast('bare', 'hello');
    await page.waitForFunction(() => window.seen.ws === 'hello' && window.seen.es === '"hello"');
    await page.close();
  });

  test('a browser that does not know the authority refuses', async () => {
    const stranger = await launch();
    try {
      await assert.rejects((await stranger.newPage()).goto(url), /ERR_CERT_AUTHORITY_INVALID/);
    } finally {
      await stranger.close();
    }
  });
});

test('our client in node over wss', async () => {
  class Trusting extends WebSocket {
    constructor(address, protocols) {
      super(address, protocols, { ca: authority.ca });
    }
  }
  const rt = new Realtime(url, { WebSocket: Trusting, transports: ['ws'] });
  const got = [];
  await rt.subscribe('node', (data) => got.push(data)).ready;
  const large = 'x'.repeat(60000);
  await server.broadcast('node', large);
  await until(() => got.length === 1, 'a message');
  assert.equal(got[0], large);
  rt.close();
});

test('curl', () => {
  const curl = (...args) => execFileSync('curl', ['-sS', '--max-time', '10', ...args], { encoding: 'utf8' });
  assert.equal(curl('--cacert', authority.file, `${url}healthz`), '{"status":"ok"}');
  assert.match(curl(`http://localhost:${server.port}/healthz`), /tls_required/);
  assert.throws(() => curl(`${url}healthz`), /certificate/);
});
