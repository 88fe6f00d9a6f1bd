// laravel-echo (on pusher-js), npm's eventsource and /pusher-resume.js in Chromium, on pages that our server serves.
//
// The libraries are npm's own files, unchanged. The application's authorization route answers as Laravel's does, by
// rt_pusher_auth(). All goes over a wire that can be cut.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, describe, test as run } from 'node:test';
import { launch } from '../browser/support.mjs';
import { APP, server, sign, sleep, until, Wire } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const directory = path.dirname(new URL(import.meta.url).pathname);
const MERCURE_KEY = 'a-secret-of-at-least-32-bytes-of-text';
const libraries = {
  'pusher.js': 'pusher-js/dist/web/pusher.min.js', 'echo.js': 'laravel-echo/dist/echo.js',
  'eventsource.js': 'eventsource/dist/index.js', 'eventsource-parser.js': 'eventsource-parser/dist/index.js',
};

let program;
let wire;
let browser;
const contexts = [];
const errors = [];

before(async () => {
  program = await server({
    'realtime.docroot': path.join(directory, 'page'), 'realtime.presence_grace': 0, 'realtime.history_size': 50,
    'realtime.mercure_subscriber_key': MERCURE_KEY, 'realtime.mercure_anonymous': 1,
  });
  wire = await new Wire(program.port).open();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await wire?.close();
  await program?.end();
});
afterEach(async () => {
  for (const context of contexts.splice(0)) await context.close();
  wire.release();
  errors.length = 0;
});

/** A page of a visitor, whom the application knows as `user`. */
async function visit(user, query = '') {
  const context = await browser.newContext();
  contexts.push(context);
  const page = await context.newPage();
  page.setDefaultTimeout(60000);
  page.on('pageerror', (error) => errors.push(error.message));
  await page.route('**/lib/*', (route) => {
    const file = libraries[path.basename(new URL(route.request().url()).pathname)];
    return route.fulfill({ contentType: 'text/javascript', body: readFileSync(path.join(directory, 'node_modules', file), 'utf8') });
  });
  await page.route('**/broadcasting/auth', async (route) => {
    const form = new URLSearchParams(route.request().postData());
    const channel = form.get('channel_name');
    if (channel === 'private-forbidden') return route.fulfill({ status: 403, json: { message: 'Forbidden' } });
    const member = channel.startsWith('presence-') ? `['user_id' => '${user}', 'user_info' => ['name' => 'The ${user}']]` : 'null';
    return route.fulfill({ json: await sign(program, form.get('socket_id'), channel, member) });
  });
  const served = page.waitForResponse((response) => new URL(response.url()).pathname === '/pusher-resume.js');
  await page.goto(`${wire.url}index.html?key=${APP.key}${query}`);
  const response = await served;
  assert.equal(response.status(), 200);
  assert.match(response.headers()['content-type'], /^text\/javascript/);
  await page.waitForFunction(() => window.echo?.connector.pusher.connection.state === 'connected');
  return page;
}

const got = (page) => page.evaluate(() => window.got);

/** Waits until a page has got `count` things, and a little for one too many. */
async function all(page, count) {
  await until(async () => (await got(page)).length >= count, `${count} things`, 30000, () => errors);
  await sleep(80);
  return got(page);
}

describe('laravel-echo in Chromium', () => {
  test('a public channel: what PHP broadcasts, and not what the page itself had broadcast', async () => {
    const page = await visit('ada');
    await page.evaluate(() => new Promise((done) => {
      echo.channel('orders').listen('.paid', (order) => got.push(order)).listen('OrderShipped', (order) => got.push(order)).subscribed(done);
    }));
    await program.broadcast('orders', { id: 42, name: 'Zoë <b>"&\u{1f600}' }, ", event: 'paid'");
    await program.broadcast('orders', { id: 43 }, ", event: 'App\\\\Events\\\\OrderShipped'");
    const id = await page.evaluate(() => echo.socketId());
    await program.broadcast('orders', { id: 44 }, `, event: 'paid', except: '${id}'`);
    assert.deepEqual(await all(page, 2), [{ id: 42, name: 'Zoë <b>"&\u{1f600}' }, { id: 43 }]);
    assert.deepEqual(errors, []);
  });

  test('private channels open by the authorization route, and stay closed when it says so', async () => {
    const page = await visit('ada');
    await page.evaluate(() => new Promise((done) => {
      echo.private('orders.1').listen('.paid', (order) => got.push(order)).subscribed(done);
    }));
    await program.broadcast('private-orders.1', { id: 1 }, ", event: 'paid'");
    assert.deepEqual(await all(page, 1), [{ id: 1 }]);
    const status = await page.evaluate(() => new Promise((done) => {
      echo.private('forbidden').error((error) => done(error.status)).subscribed(() => done('subscribed'));
    }));
    assert.equal(status, 403);
    assert.equal(await program.php("echo count(rt_connections('private-forbidden'));"), '0');
  });

  test('a presence channel: who is there, who comes, whispers and goes', async () => {
    const ada = await visit('ada');
    const here = () => new Promise((done) => {
      window.room = echo.join('room').here((users) => done(users.map((user) => user.name).sort()))
        .joining((user) => got.push(['joining', user.name])).leaving((user) => got.push(['leaving', user.name]))
        .listenForWhisper('typing', (event) => got.push(['typing', event]));
    });
    assert.deepEqual(await ada.evaluate(here), ['The ada']);
    const bob = await visit('bob');
    assert.deepEqual(await bob.evaluate(here), ['The ada', 'The bob']);
    await all(ada, 1);
    await bob.evaluate(() => { room.whisper('typing', { at: 7 }); });
    await all(ada, 2);
    await bob.evaluate(() => echo.leave('room'));
    assert.deepEqual(await all(ada, 3), [['joining', 'The bob'], ['typing', { at: 7 }], ['leaving', 'The bob']]);
    assert.deepEqual(await got(bob), [], 'a whisper is for the others');
    assert.deepEqual(errors, []);
  });

  test('closing the tab ends its presence', async () => {
    const ada = await visit('ada');
    await ada.evaluate(() => new Promise((done) => {
      echo.join('tab').here(done).joining((user) => got.push(['joining', user.name])).leaving((user) => got.push(['leaving', user.name]));
    }));
    const bob = await visit('bob');
    await bob.evaluate(() => new Promise((done) => { echo.join('tab').here(done); }));
    await all(ada, 1);
    await bob.close();
    assert.deepEqual(await all(ada, 2), [['joining', 'The bob'], ['leaving', 'The bob']]);
  });
});

/** Cuts the wire, has something done meanwhile, and mends it. */
async function away(page, meanwhile) {
  // Held rather than refused: after a refusal pusher-js waits for a quarter of a minute.
  wire.holding = true;
  wire.cut();
  await page.waitForFunction(() => echo.connector.pusher.connection.state !== 'connected');
  await meanwhile();
  wire.release();
  await page.waitForFunction(() => echo.connector.pusher.connection.state === 'connected', null, { timeout: 120000 });
}

describe('/pusher-resume.js in Chromium', () => {
  const begin = (page) => page.evaluate(() => Promise.all([echo.channel('news'), echo.private('letters')].map(
    (channel) => new Promise((done) => { channel.listen('.message', (n) => got.push([channel.name, n])).subscribed(done); }))));

  test('what was published while the connection was cut arrives, once and in order', async () => {
    const page = await visit('ada', '&resume');
    await begin(page);
    await program.numbers('news', 0, 2);
    await all(page, 2);
    for (const round of [1, 2]) {
      await away(page, async () => {
        await program.numbers('news', 2 * round, 2);
        await program.broadcast('private-letters', round);
      });
      await all(page, 2 + 3 * round);
    }
    await program.broadcast('news', 6);
    const heard = await all(page, 9);
    const of = (name) => heard.filter(([channel]) => channel === name).map(([, n]) => n);
    assert.deepEqual([of('news'), of('private-letters')], [[0, 1, 2, 3, 4, 5, 6], [1, 2]]);
    assert.deepEqual(await page.evaluate(() => gaps), []);
  });

  test('a history that no longer reaches back is told', async () => {
    const page = await visit('ada', '&resume');
    await begin(page);
    await away(page, () => program.numbers('news', 0, 80));
    const heard = await all(page, 50);
    assert.deepEqual(heard.map(([, n]) => n), Array.from({ length: 50 }, (_, n) => 30 + n));
    assert.deepEqual(await page.evaluate(() => gaps), ['news']);
  });

  test('without it everything is as with Pusher: what was published meanwhile is lost', async () => {
    const page = await visit('ada');
    await begin(page);
    await away(page, () => program.broadcast('news', 'missed'));
    await page.waitForFunction(() => echo.connector.pusher.channel('news').subscribed);
    await program.broadcast('news', 'live');
    assert.deepEqual(await all(page, 1), [['news', 'live']]);
  });
});

test('npm\'s eventsource in Chromium: updates of the Mercure URL, and what was missed while the connection was cut', async () => {
  const page = await visit('ada');
  await page.evaluate(() => new Promise((done) => {
    window.source = new NpmEventSource(`/.well-known/mercure?topic=${encodeURIComponent('https://shop.example/orders/{id}')}`);
    source.onopen = done;
    source.onmessage = ({ data }) => got.push(JSON.parse(data));
  }));
  // The head, of which the page knows, comes a little before the subscription.
  await until(async () => await program.php('echo rt_stats()["subscriptions"];') === '1', 'the subscription');
  const publish = (id) => program.broadcast(`https://shop.example/orders/${id}`, { id });
  await publish(1);
  await publish(2);
  await all(page, 2);
  wire.holding = true;
  wire.cut();
  await page.waitForFunction(() => source.readyState === NpmEventSource.CONNECTING);
  await publish(3);
  wire.release();
  await page.waitForFunction(() => source.readyState === NpmEventSource.OPEN, null, { timeout: 20000 });
  await publish(4);
  assert.deepEqual(await all(page, 4), [{ id: 1 }, { id: 2 }, { id: 3 }, { id: 4 }]);
  assert.deepEqual(await page.evaluate(() => NpmEventSource === window.EventSource), false, 'it is npm\'s and not the browser\'s');
});
