// The demo (php/demo) in a real browser: two tabs chat, PHP pushes, the chart moves, and all comes back after a restart.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Program, launch, root, run, sleep, until } from './support.mjs';

const artifacts = process.env.ARTIFACTS || path.join(root, 'build/artifacts');
const errors = [];
let demo;
let browser;
let a;
let b;

async function tab(address = demo.url, options = {}) {
  const page = await (await browser.newContext({ viewport: { width: 1200, height: 900 }, ...options })).newPage();
  page.setDefaultTimeout(30000);
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('dialog', (dialog) => errors.push(`a dialog: ${dialog.message()}`));
  await page.goto(address);
  await page.waitForSelector('#status[data-state=open]');
  return page;
}

async function say(page, text) {
  await page.fill('#text', text);
  await page.press('#text', 'Enter');
}

/** Waits until so many connections have subscribed, which a page may do a little after it says that it is connected. */
const subscribed = (channel, connections) => until(async () => Number(await demo.php(`echo rt_channels('${channel}')['${channel}'] ?? 0;`)) >= connections,
  `${connections} subscribers of ${channel}`, 30000, () => demo.php('echo json_encode(rt_channels());'));

const said = (page, text) => page.waitForFunction(
  (wanted) => [...document.querySelectorAll('#log li')].filter((item) => item.textContent.includes(wanted)).length === 1, text);
const count = (page, text) => page.locator('#log li', { hasText: text }).count();

before(async () => {
  mkdirSync(artifacts, { recursive: true });
  demo = await new Program('php/demo/demo.php', { 'realtime.docroot': path.join(root, 'php/demo/public') }).startAgainLater();
  browser = await launch();
  [a, b] = [await tab(), await tab()];
  await subscribed('chat', 2);
});
after(async () => {
  await browser?.close();
  await demo?.end();
});

test('without a directory for its page the demo says so', async () => {
  const { code, stderr } = await run([path.join(root, 'php/demo/demo.php'), '127.0.0.1:0']);
  assert.equal(code, 1);
  assert.match(stderr, /php -d realtime\.docroot=\S+\/php\/demo\/public/);
});

test('Chromium agrees on compression by itself, both ways', async () => {
  const orders = Array.from({ length: 300 }, (_, i) => ({ id: 41000 + i, status: i % 3 ? 'paid' : 'open', name: 'Zoë' }));
  await a.evaluate(() => new Promise((done) => {
    globalThis.raw = new WebSocket(`${location.origin.replace('http', 'ws')}/raw/big`);
    raw.got = new Promise((got) => { raw.onmessage = (event) => got(event.data); });
    raw.onopen = done;
  }));
  assert.match(await a.evaluate(() => raw.extensions), /^permessage-deflate/);
  await subscribed('big', 1);
  await demo.broadcast('big', orders);
  assert.deepEqual(JSON.parse(await a.evaluate(() => raw.got)), orders);
  // What a page sends Chromium compresses, whatever its size.
  const pong = await a.evaluate((ref) => new Promise((done) => {
    const ws = new WebSocket(`${location.origin.replace('http', 'ws')}/ws`);
    ws.onopen = () => ws.send(JSON.stringify({ type: 'ping', ref }));
    ws.onmessage = (event) => JSON.parse(event.data).type === 'pong' && done(event.data);
    ws.onclose = (event) => done(`closed: ${event.code} ${event.reason}`);
  }), 'r'.repeat(60));
  assert.deepEqual(JSON.parse(pong), { type: 'pong', ref: 'r'.repeat(60) });
});

test('two tabs talk to each other, by name, and nothing is HTML', async () => {
  await a.fill('#name', 'Ada');
  await a.press('#name', 'Tab');
  await say(a, 'hello <img src=x onerror=alert(1)> & "you"');
  await said(b, 'hello <img src=x onerror=alert(1)> & "you"');
  assert.equal(await b.locator('#log li b').last().textContent(), 'Ada');
  assert.equal(await b.locator('#log img').count(), 0);
  await say(b, 'hello back');
  await said(a, 'hello back');
  await said(b, 'hello back'); // its author sees it once
  await b.waitForSelector('#log li.own:not(.sending)[title*="-"]'); // … with the id that PHP's handler replied
  assert.equal(await a.locator('#log li.failed').count(), 0);
});

test('rt_broadcast() from another PHP process appears in both tabs', async () => {
  await demo.php('rt_broadcast("chat", "hello from cron");');
  await Promise.all([said(a, 'hello from cron'), said(b, 'hello from cron')]);
  // The command that the page and the terminal show works as it stands.
  const command = await a.textContent('#command');
  assert.match(command, /^php .*-d extension=.* -r 'rt_broadcast\("chat", "hello from cron"\);'$/);
  assert.ok(demo.output().stdout.includes(command), demo.output().stdout);
});

test('the monitor moves, several times a second', async () => {
  const look = () => a.evaluate(() => ['cpu', 'rate', 'connections'].map((name) => ({
    value: document.getElementById(name).textContent, drawn: document.getElementById(`chart-${name}`).toDataURL().length,
    picture: document.getElementById(`chart-${name}`).toDataURL() })));
  await a.bringToFront();
  await a.waitForFunction(() => document.querySelector('#load').textContent.startsWith('load '));
  const took = await a.evaluate(() => new Promise((done) => {
    const begun = Date.now();
    let points = 0;
    new MutationObserver(() => ++points === 17 && done(Date.now() - begun)).observe(document.querySelector('#load'), { childList: true });
  }));
  // Four seconds and a quarter, or more where a browser has to wait for its turn; some of them may have waited for it before.
  assert.ok(took >= 1500 && took < 15000, `17 points in ${took} ms`);
  const before = await look();
  const after = await until(async () => {
    const now = await look();
    return now.every(({ picture }, i) => picture !== before[i].picture) && now;
  }, 'charts that move');
  assert.match(after[0].value, /^\d+ %$/);
  assert.ok(Number(after[2].value) >= 2, `connections: ${after[2].value}`);
});

test('one channel over three transports, side by side', async () => {
  await a.click('#compare');
  for (const kind of ['ws', 'sse', 'poll']) {
    await a.waitForFunction((kind) => document.querySelector(`[data-kind=${kind}] .pill[data-state=open]`)?.textContent === kind, kind);
  }
  await subscribed('chat', 5); // the two tabs, and the three that were opened now
  await say(a, 'over all three');
  for (const kind of ['ws', 'sse', 'poll']) {
    const item = a.locator(`[data-kind=${kind}] li`, { hasText: 'over all three' });
    await item.waitFor();
    assert.match(await item.locator('code').textContent(), /^[\da-f]{8}-\d+$/);
    assert.match(await item.locator('em').textContent(), /^\d+ ms$/);
  }
  const ids = await a.locator('.pane li:last-child code').allTextContents();
  assert.equal(new Set(ids).size, 1, `one message has one id: ${ids}`);
  await a.screenshot({ path: path.join(artifacts, 'demo.png'), fullPage: true });
  await a.emulateMedia({ colorScheme: 'dark' });
  await sleep(200);
  await a.screenshot({ path: path.join(artifacts, 'demo-dark.png'), fullPage: true });
  await a.emulateMedia({ colorScheme: 'light' });
  await a.click('#compare');
  await a.waitForSelector('#panes', { state: 'hidden' });
});

test('a page on SSE or long polling chats just the same', async () => {
  for (const kind of ['sse', 'poll']) {
    // Those that were there before may still be there for a while.
    const there = async () => JSON.parse(await demo.php('echo json_encode(array_column(rt_connections("chat"), "id"));'));
    const before = await there();
    const page = await tab(`${demo.url}?transports=${kind}`);
    assert.equal(await page.getAttribute('#status', 'data-transport'), kind);
    await until(async () => (await there()).some((id) => !before.includes(id)), 'its subscription');
    await say(page, `by ${kind}`);
    await Promise.all([said(a, `by ${kind}`), said(page, `by ${kind}`)]);
    await say(a, `to ${kind}`);
    await said(page, `to ${kind}`);
    assert.equal(await count(page, `by ${kind}`), 1, 'its author gets it once');
    await page.context().close();
  }
});

test('a phone shows it without scrolling sideways', async () => {
  const phone = await tab(demo.url, { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true });
  const width = await phone.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 390, `${width} pixels wide`);
  await sleep(1500);
  await phone.screenshot({ path: path.join(artifacts, 'demo-phone.png'), fullPage: true });
  await phone.context().close();
});

test('a browser\'s own EventSource and WebSocket', async () => {
  const got = a.evaluate(() => new Promise((done) => {
    const got = [];
    const add = (what) => (data) => { got.push([what, data.data]); if (got.length === 2) done(got); };
    new EventSource('/sse?channel=plain').onmessage = add('sse');
    new WebSocket(`ws://${location.host}/raw/plain`).onmessage = add('raw');
  }));
  await subscribed('plain', 2);
  await demo.php('rt_broadcast("plain", "text");');
  assert.deepEqual(Object.fromEntries(await got), { sse: '"text"', raw: 'text' });
});

test('the network goes and comes back', async () => {
  await b.context().setOffline(true);
  await b.evaluate(() => new Promise((done) => setTimeout(done, 100)));
  await say(a, 'while b was away');
  await b.context().setOffline(false);
  await said(b, 'while b was away');
});

test('the server is restarted: both tabs come back by themselves', async () => {
  await demo.stop();
  for (const page of [a, b]) await page.waitForSelector('#status[data-state=connecting]');
  await demo.start();
  for (const page of [a, b]) await page.waitForSelector('#status[data-state=open][data-transport=ws]');
  await demo.php('rt_broadcast("chat", "back again");');
  await Promise.all([said(a, 'back again'), said(b, 'back again')]);
  await say(a, 'and chatting');
  await said(b, 'and chatting');
});

test('a port that is taken: one clear line, and the exit status 1', async () => {
  const home = demo.home;
  const { code, stderr } = await run([demo.file, `127.0.0.1:${demo.port}`], { socket: path.join(home, 'other.sock'), settings: demo.settings });
  assert.equal(code, 1);
  assert.match(stderr, new RegExp(`The demo cannot start: .*127\\.0\\.0\\.1:${demo.port}`));
});

test('no page had an error', () => assert.deepEqual(errors, []));
