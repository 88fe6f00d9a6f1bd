// Pusher's and Mercure's own addresses through nginx and through Apache, as php/nginx and php/apache pass them on: pusher-js, Pusher's
// SDK and EventSource know the proxy's port alone.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { afterEach, describe } from 'node:test';
import { EventSource, until } from '../browser/support.mjs';
import { all, APP, client, collect, connected, PusherServer } from '../protocols/support.mjs';
import { Lab, testsOf } from './lab.mjs';
import { Apache, shared, site } from './servers.mjs';

const MERCURE_KEY = 'a-secret-of-at-least-32-bytes-of-text';
const settings = {
  pusher_app: `${APP.id}:${APP.key}:${APP.secret}`, client_events: 1, presence_grace: 0,
  mercure_publisher_key: MERCURE_KEY, mercure_subscriber_key: MERCURE_KEY, mercure_anonymous: 1, mercure_subscriptions: 1,
};
let lab;
const open = [];

const test = testsOf(() => lab);
afterEach(async () => {
  for (const it of open.splice(0)) it();
  await lab?.end();
  lab = undefined;
});

const proxies = {
  nginx: async () => {
    lab = await site({ lab: { settings }, fpm: { pool: { pm: 'static', 'pm.max_children': 2 } }, nginx: { protocols: true } });
  },
  Apache: async () => {
    lab = await Lab.make({ ini: shared, settings });
    lab.apache = await new Apache(lab, { protocols: true }).start();
  },
};

const sign = (text) => `${APP.key}:${createHmac('sha256', APP.secret).update(text).digest('hex')}`;

/** pusher-js on the proxy's port, whose application says that it is `user`. */
function join(user) {
  const pusher = client({ url: lab.url }, {
    channelAuthorization: {
      customHandler({ socketId, channelName }, done) {
        if (!channelName.startsWith('presence-')) return done(null, { auth: sign(`${socketId}:${channelName}`) });
        const channel_data = JSON.stringify({ user_id: user });
        done(null, { auth: sign(`${socketId}:${channelName}:${channel_data}`), channel_data });
      },
    },
  });
  open.push(() => pusher.disconnect());
  return pusher;
}

/** An EventSource on the Mercure URL of the proxy, and what it gets. */
async function listen(query) {
  const before = (await lab.stats()).subscriptions;
  const source = new EventSource(`${lab.url}/.well-known/mercure?${new URLSearchParams(query)}`);
  open.push(() => source.close());
  const got = [];
  source.onmessage = ({ data, lastEventId }) => got.push({ data: JSON.parse(data), id: lastEventId });
  await new Promise((done, fail) => { source.onopen = done; source.onerror = fail; });
  // The head comes a little before the subscription; whoever says where he was misses nothing between them.
  if (!query.lastEventID) await until(async () => (await lab.stats()).subscriptions > before, 'the subscription');
  return Object.assign(got, { source });
}

/** A token of an application for Mercure. */
function token(mercure) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ mercure })}`;
  return `${text}.${createHmac('sha256', MERCURE_KEY).update(text).digest('base64url')}`;
}

for (const [name, begin] of Object.entries(proxies)) {
  describe(`through ${name}`, () => {
    test('pusher-js: public, private and presence channels, client events, and the address that PHP sees', async () => {
      await begin();
      await lab.push('any', 0);
      const [ada, bob] = [join('ada'), join('bob')];
      const open = await collect(ada, 'orders');
      const here = await collect(ada, 'presence-room', ['pusher:member_added']);
      const [mine, theirs] = [await collect(ada, 'private-talk', ['client-hi']), await collect(bob, 'private-talk', ['client-hi'])];
      await lab.push('orders', { id: 1 });
      await all(open, 1);
      assert.deepEqual(open[0].data, { id: 1 });
      await collect(bob, 'presence-room');
      await all(here, 1);
      assert.equal(here[0].data.id, 'bob');
      mine.channel.trigger('client-hi', { n: 1 });
      await all(theirs, 1);
      assert.deepEqual([theirs[0].data, mine.length], [{ n: 1 }, 0]);
      const seen = await lab.php("echo json_encode(array_map(fn ($c) => [$c->ip, $c->path], rt_connections('orders')));");
      assert.deepEqual(JSON.parse(seen), [['127.0.0.1', `/app/${APP.key}`]]);
      assert.deepEqual([ada.errors, bob.errors], [[], []]);
    });

    test('pusher-js: a key that is not there is told so, and it stays away', async () => {
      await begin();
      await lab.push('any', 0);
      const stranger = client({ url: lab.url }, { key: 'no-such-key' });
      open.push(() => stranger.disconnect());
      await until(() => stranger.connection.state === 'failed' || stranger.errors.some((error) => error.code === 4001), 'the refusal', 30000, () => stranger.errors);
    });

    test('Pusher\'s SDK: publishing, looking and ending connections, signed', async () => {
      await begin();
      await lab.push('any', 0);
      const sdk = new PusherServer({ appId: APP.id, key: APP.key, secret: APP.secret, host: '127.0.0.1', port: lab.webPort, useTLS: false });
      const pusher = join('ada');
      const got = await collect(pusher, 'orders', ['paid']);
      await collect(pusher, 'presence-room');
      assert.equal((await sdk.trigger('orders', 'paid', { id: 42, name: 'Zoë' })).status, 200);
      // As large as one may be.
      await sdk.triggerBatch([{ channel: 'orders', name: 'paid', data: 'x'.repeat(10 * 1024) }]);
      await all(got, 2);
      assert.deepEqual(got[0].data, { id: 42, name: 'Zoë' });
      const get = async (path, params = {}) => (await sdk.get({ path, params })).json();
      assert.deepEqual(await get('/channels/presence-room/users'), { users: [{ id: 'ada' }] });
      assert.deepEqual(await get('/channels', { filter_by_prefix: 'presence-', info: 'user_count' }), { channels: { 'presence-room': { user_count: 1 } } });
      // A name that is percent-encoded in the path that was signed.
      assert.equal((await get('/channels/a%3Ab%2Fc')).occupied, false);
      const wrong = new PusherServer({ appId: APP.id, key: APP.key, secret: 'another-secret', host: '127.0.0.1', port: lab.webPort, useTLS: false });
      await assert.rejects(wrong.trigger('orders', 'paid', 1), { status: 401 });
    });

    test('EventSource on the Mercure URL: each update as it is published, by PHP, Pusher or a form', async () => {
      await begin();
      await lab.push('any', 0);
      const topic = 'https://shop.example/orders/1';
      const got = await listen({ topic: 'https://shop.example/orders/{id}' });
      for (let n = 0; n < 3; n++) {
        await lab.push(topic, { n });
        // Small ones one by one: a proxy that collects would keep all of them.
        await until(() => got.length === n + 1, 'the update', 30000, () => got);
      }
      const posted = await fetch(`${lab.url}/.well-known/mercure`, {
        method: 'POST', body: new URLSearchParams({ topic, data: '{"n":3}' }), headers: { Authorization: `Bearer ${token({ publish: ['*'] })}` },
      });
      assert.equal(posted.status, 200, await posted.clone().text());
      await until(() => got.length === 4, 'what the form published');
      assert.deepEqual(got.map(({ data }) => data), [{ n: 0 }, { n: 1 }, { n: 2 }, { n: 3 }]);
      got.source.close();
      const resumed = await listen({ topic, lastEventID: got[1].id });
      await until(() => resumed.length === 2, 'what was missed', 30000, () => resumed);
      assert.deepEqual(resumed.map(({ data }) => data), [{ n: 2 }, { n: 3 }]);
    });

    test('Mercure\'s subscriptions are below its address', async () => {
      await begin();
      await lab.push('any', 0);
      await listen({ topic: 'https://shop.example/orders/1' });
      const address = `${lab.url}/.well-known/mercure/subscriptions`;
      assert.equal((await fetch(address)).status, 401);
      const headers = { Authorization: `Bearer ${token({ subscribe: ['*'] })}` };
      const answer = await (await fetch(address, { headers })).json();
      assert.deepEqual(answer.subscriptions.map((one) => one.topic), ['https://shop.example/orders/1']);
    });
  });
}

describe('while no server runs', () => {
  test('nginx breaks an EventSource\'s connection, which comes back by itself', async () => {
    await proxies.nginx();
    const source = new EventSource(`${lab.url}/.well-known/mercure?topic=late`);
    open.push(() => source.close());
    const got = [];
    source.onmessage = ({ data }) => got.push(data);
    let errors = 0;
    source.onerror = () => { errors += 1; };
    await until(() => errors > 0, 'an error');
    // The first request of PHP starts the server.
    await lab.push('any', 0);
    await until(() => source.readyState === 1, 'the connection', 30000, () => errors);
    await until(async () => (await lab.stats()).subscriptions > 0, 'the subscription');
    await lab.push('late', 1);
    await until(() => got.length === 1, 'the update');
    await connected(join('ada'));
  });
});
