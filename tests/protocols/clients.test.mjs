// One page in Chromium (php/examples/clients.php) with three clients on one channel: pusher-js 8, EventSource on the Mercure URL,
// and ours. What one rt_broadcast() sends, all of them show.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { after, before, test as run } from 'node:test';
import { launch, Program, root, run as php, until } from '../browser/support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const artifacts = process.env.ARTIFACTS || path.join(root, 'build/artifacts');
const CLIENTS = ['pusher', 'mercure', 'native'];
const settings = {
  'realtime.docroot': path.join(root, 'php/examples/clients'),
  'realtime.pusher_app': 'shop:shop-key:secret-of-the-shop',
  'realtime.mercure_subscriber_key': 'a-secret-of-at-least-32-bytes-of-text',
  'realtime.mercure_anonymous': 1,
};

let server;
let browser;
let page;
const errors = [];

before(async () => {
  mkdirSync(artifacts, { recursive: true });
  // An order an hour: those of the tests alone.
  server = await new Program('php/examples/clients.php', settings, ['3600']).startAgainLater();
  browser = await launch();
  page = await browser.newPage({ viewport: { width: 1200, height: 760 } });
  page.setDefaultTimeout(60000);
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  // The page asks Pusher's server for pusher-js; here npm's copy of it answers.
  const require = createRequire(import.meta.url);
  assert.match(require('pusher-js/package.json').version, /^8\./);
  const library = require.resolve('pusher-js/dist/web/pusher.min.js');
  await page.route('https://js.pusher.com/8.*/pusher.min.js', (route) => route.fulfill({
    contentType: 'text/javascript', body: readFileSync(library, 'utf8'),
  }));
  await page.goto(server.url);
  await page.waitForFunction(() => document.querySelectorAll('section[data-state=open]').length === 3);
  // The head of a stream, of which the page knows, comes a little before the subscription.
  await until(async () => await server.php('echo rt_stats()["subscriptions"];') === '3', 'three subscriptions');
});
after(async () => {
  await browser?.close();
  await server?.end();
});

const lists = () => page.evaluate((names) => names.map(
  (name) => [...document.querySelectorAll(`#${name} li`)].map((item) => item.textContent)), CLIENTS);

/** Waits until all three show these orders, newest first, and nothing else. */
async function shown(...orders) {
  const expected = CLIENTS.map(() => orders.map((order) => JSON.stringify(order)));
  await until(async () => (await lists()).every((list) => list.length >= orders.length), 'the orders at all three', 30000);
  await page.waitForTimeout(150); // for one too many to show
  assert.deepEqual(await lists(), expected);
}

test('all three show what one rt_broadcast() sent', async () => {
  const first = { id: 42, status: 'paid', name: 'Zoë <b>"&' };
  await server.broadcast('orders', first);
  await shown(first);
  await page.click('#pay'); // our client asks PHP, PHP tells all
  await shown({ id: 41001, status: 'paid' }, first);
  const states = await page.locator('.state').allTextContents();
  assert.deepEqual(states, ['subscribed', 'open', 'open, over ws']);
  const screenshot = path.join(artifacts, 'three-clients.png');
  await page.screenshot({ path: screenshot });
  assert.ok(readFileSync(screenshot).length > 10_000);
});

test('all three come back after the server was away', async () => {
  await server.stop();
  await page.waitForFunction(() => document.querySelectorAll('section[data-state=connecting]').length === 3);
  await server.start();
  await page.waitForFunction(() => document.querySelectorAll('section[data-state=open]').length === 3, null, { timeout: 60000 });
  await page.evaluate(() => { for (const list of document.querySelectorAll('ol')) list.replaceChildren(); });
  await server.broadcast('orders', { id: 43, status: 'after a restart' });
  await shown({ id: 43, status: 'after a restart' });
  // What a browser says of a server that is away; nothing else.
  assert.deepEqual(errors.filter((error) => !/ERR_|WebSocket connection|Failed to load resource/.test(error)), []);
});

test('without its settings the example says so', async () => {
  const { stdout } = await php([path.join(root, 'php/examples/clients.php'), '127.0.0.1:0']);
  assert.match(stdout, /realtime\.docroot is not set/);
});
