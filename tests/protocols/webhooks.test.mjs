// Webhooks, checked by the `pusher` SDK: what is told, when it is not, and that it comes again until it is taken.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import http from 'node:http';
import { afterEach, test as run } from 'node:test';
import { all, APP, authorizer, client, collect, PusherServer, server, sleep, until } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const sdk = new PusherServer({ appId: APP.id, key: APP.key, secret: APP.secret, host: '127.0.0.1' });
const open = [];

afterEach(async () => { for (const it of open.splice(0).reverse()) await it(); });

function join(options, where) {
  const pusher = client(where, options);
  open.push(() => pusher.disconnect());
  return pusher;
}

/** An application that takes webhooks; `answer` says with which status, or that there is none: `hang`, `cut`. */
async function application(answer = () => 200) {
  const calls = [];
  const app = http.createServer((request, response) => {
    let body = '';
    request.on('data', (text) => { body += text; }).on('end', () => {
      const status = answer(calls.length + 1);
      calls.push({ headers: request.headers, rawBody: body, at: Date.now(), status });
      if (status === 'cut') request.socket.destroy();
      else if (status !== 'hang') response.writeHead(status).end('thanks');
    });
  });
  await new Promise((done) => app.listen(0, '127.0.0.1', done));
  return { calls, url: `http://127.0.0.1:${app.address().port}/hook?x=1`, close: () => { app.closeAllConnections(); app.close(); } };
}

/** A server that tells `app`, and what was told so far. */
async function telling(app, settings = {}) {
  open.push(() => app.close());
  const program = await server({
    'realtime.pusher_app': `"${APP.id}:${APP.key}:${APP.secret}"`, 'realtime.pusher_webhook': `"${app.url}"`, 'realtime.presence_grace': 0, ...settings,
  });
  open.push(() => program.end());
  const seen = () => app.calls.filter((call) => call.status === 200).flatMap((call) => {
    const hook = sdk.webhook(call);
    assert.ok(hook.isValid(), JSON.stringify(call));
    assert.ok(Math.abs(hook.getTime() - Date.now()) < 60000);
    return hook.getEvents().map((event) => ({ ...event, at: call.at }));
  });
  const find = (name, channel) => until(() => seen().find((event) => event.name === name && event.channel === channel), `${name} ${channel}`, 30000, seen);
  return { program, seen, find };
}

test('tell what happens, signed', async () => {
  const { program: told, find } = await telling(await application(), { 'realtime.pusher_subscription_count': 1 });
  const ada = join({ channelAuthorization: authorizer(told, "['user_id' => 'ada']") }, told);
  const got = await collect(ada, 'presence-w', ['client-x']);
  await find('channel_occupied', 'presence-w');
  assert.equal((await find('member_added', 'presence-w')).user_id, 'ada');
  got.channel.trigger('client-x', { n: 1 });
  const event = await find('client_event', 'presence-w');
  assert.deepEqual([event.event, event.data, event.user_id, event.socket_id], ['client-x', '{"n":1}', 'ada', ada.connection.socket_id]);
  const open = await collect(ada, 'cache-w', ['pusher:subscription_count']);
  await find('cache_miss', 'cache-w');
  assert.equal((await find('subscription_count', 'cache-w')).subscription_count, 1);
  await until(() => open.length === 1, 'the count');
  assert.equal(open.channel.subscriptionCount, 1);
  ada.disconnect();
  await find('channel_vacated', 'presence-w');
  await find('member_removed', 'presence-w');
});

test('come again until they are taken, after longer and longer pauses, and nothing overtakes them', async () => {
  // The first is refused, the second is not answered at all, the third ends without an answer.
  const app = await application((count) => [500, 'hang', 'cut'][count - 1] ?? 200);
  const { program, seen, find } = await telling(app);
  const pusher = join({}, program);
  await collect(pusher, 'one');
  await until(() => app.calls.length === 1, 'the first try');
  await collect(pusher, 'two');
  await find('channel_occupied', 'two');
  const { calls } = app;
  assert.deepEqual(calls.map((call) => call.status), [500, 'hang', 'cut', 200, 200]);
  assert.equal(new Set(calls.slice(0, 4).map((call) => call.rawBody)).size, 1, 'the same, with the same signature');
  assert.deepEqual(seen().map((event) => event.channel), ['one', 'two']);
  // A pause of 1 second, of 2 after the 5 that an answer may take, of 4. Each call is noted when the application gets to it.
  const pauses = calls.slice(1, 4).map((call, n) => call.at - calls[n].at);
  // Only the second may be noted late when the server's time for it runs already.
  for (const [n, least] of [1000 - 100, 7000 - 2500, 4000 - 100].entries()) {
    assert.ok(pauses[n] >= least && pauses[n] < least + 8000, `${pauses}`);
  }
});

test('that a channel is vacated is told when it stays so: the reload of a page is no news', async () => {
  const { program, seen, find } = await telling(await application());
  // At once: a PHP process for each signature may take longer than a page may be away.
  const user = { channelAuthorization: { customHandler({ socketId, channelName }, done) {
    const channel_data = '{"user_id":"ada"}';
    const signature = createHmac('sha256', APP.secret).update(`${socketId}:${channelName}:${channel_data}`).digest('hex');
    done(null, { auth: `${APP.key}:${signature}`, channel_data });
  } } };
  /** Has a page reloaded; returns its second connection, or none where it was away for longer than the server waits: then it is news. */
  async function reloaded(page) {
    const before = join(user, program);
    await collect(before, page);
    await collect(before, `presence-${page}`);
    await find('channel_occupied', page);
    await find('member_added', `presence-${page}`);
    const gone = Date.now();
    before.disconnect();
    // Longer than it takes to be seen.
    await sleep(1400);
    const after = join(user, program);
    await collect(after, page);
    await collect(after, `presence-${page}`);
    return Date.now() - gone < 3000 && after;
  }
  let tries = 0;
  const after = await until(() => reloaded(`page${++tries}`), 'a reload that is quick enough', 60000);
  const page = `page${tries}`;
  await sleep(5000);
  const told = () => seen().filter(({ channel }) => channel.endsWith(page)).map((event) => `${event.name} ${event.channel}`).sort();
  assert.deepEqual(told(), [`channel_occupied ${page}`, `channel_occupied presence-${page}`, `member_added presence-${page}`]);
  const left = Date.now();
  after.disconnect();
  const vacated = await find('channel_vacated', page);
  await find('channel_vacated', `presence-${page}`);
  await find('member_removed', `presence-${page}`);
  assert.ok(vacated.at - left >= 2900 && vacated.at - left < 20000, `${vacated.at - left} ms`);
  assert.equal(told().length, 6, 'each once');
});

test('a client event that is PHP\'s to judge is none of theirs', async () => {
  const { program, seen, find } = await telling(await application(), { 'realtime.client_events': 0 });
  const auth = { channelAuthorization: authorizer(program) };
  const [mine, theirs] = [await collect(join(auth, program), 'private-talk', ['client-x']), await collect(join(auth, program), 'private-talk', ['client-x'])];
  mine.channel.trigger('client-x', { n: 1 });
  await all(theirs, 1); // rt_on_message() passes it on
  await collect(join({}, program), 'later');
  await find('channel_occupied', 'later');
  assert.deepEqual(seen().filter((event) => event.name === 'client_event'), []);
});
