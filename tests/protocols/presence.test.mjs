// Presence and cache channels with pusher-js and Laravel Echo, beside native clients.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test as run } from 'node:test';
import WebSocket from 'ws';
import { all, APP, authorizer, client, collect, Echo, MASTER_KEY, Pusher, PusherServer, server, sleep, until } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const SECRET = 'a-secret-of-the-tests-that-is-long-enough';

let program;
const open = [];

before(async () => { program = await server({ 'realtime.presence_grace': 0, 'realtime.secret': SECRET }); });
after(() => program.end());
afterEach(() => { for (const it of open.splice(0)) it.disconnect(); });

/** A client whose application says that it is `id`. */
function as(id, options = {}) {
  const user = `['user_id' => '${id}', 'user_info' => ['name' => 'The ${id}']]`;
  const pusher = client(program, { channelAuthorization: authorizer(program, user), ...options });
  open.push(pusher);
  return pusher;
}

describe('presence channels', () => {
  test('tell who is there, who comes and who goes, once for each user', async () => {
    const ada = await collect(as('ada'), 'presence-room', ['pusher:member_added', 'pusher:member_removed']);
    const { members } = ada.channel;
    assert.deepEqual([members.count, members.me], [1, { id: 'ada', info: { name: 'The ada' } }]);
    const first = as('bob');
    const bob = await collect(first, 'presence-room');
    assert.deepEqual(Object.keys(bob.channel.members.members).sort(), ['ada', 'bob']);
    const second = as('bob');
    await collect(second, 'presence-room');
    await all(ada, 1);
    first.disconnect();
    await sleep(200);
    assert.equal(ada.length, 1);
    second.disconnect();
    await all(ada, 2);
    assert.deepEqual(ada.map((it) => [it.event, it.data]), [
      ['pusher:member_added', { id: 'bob', info: { name: 'The bob' } }], ['pusher:member_removed', { id: 'bob', info: { name: 'The bob' } }],
    ]);
    assert.equal(members.count, 1);
  });

  test('have the members of native clients, and PHP sees all of them', async () => {
    const ada = await collect(as('ada'), 'presence-mixed', ['pusher:member_added', 'pusher:member_removed']);
    const token = await program.php("echo rt_token(['sub' => 'nat', 'channels' => 'presence-*', 'info' => ['name' => 'Nat']]);");
    const native = new WebSocket(`${program.url.replace('http', 'ws')}ws?token=${token}`);
    const frames = [];
    native.on('message', (text) => frames.push(JSON.parse(text)));
    await until(() => frames.length === 1, 'a welcome');
    native.send('{"type":"subscribe","channel":"presence-mixed"}');
    await all(ada, 1);
    assert.deepEqual(ada[0].data, { id: 'nat', info: { name: 'Nat' } });
    const there = await until(() => frames.find((frame) => frame.type === 'subscribed'), 'its own subscription', 30000, () => frames);
    assert.deepEqual(there.members.map((member) => member.user), ['ada', 'nat']);
    assert.deepEqual(JSON.parse(await program.php("echo json_encode(array_keys(rt_presence('presence-mixed')));")), ['ada', 'nat']);
    native.terminate();
    await all(ada, 2);
    assert.equal(ada[1].event, 'pusher:member_removed');
  });

  test('want channel data with a user', async () => {
    const nobody = client(program, { channelAuthorization: {
      // Signed as if it were a private channel.
      customHandler: async ({ socketId, channelName }, done) => {
        const { createHmac } = await import('node:crypto');
        done(null, { auth: `${APP.key}:${createHmac('sha256', APP.secret).update(`${socketId}:${channelName}`).digest('hex')}`, channel_data: '' });
      },
    } });
    open.push(nobody);
    const frames = [];
    nobody.connection.bind('message', (event) => frames.push(event));
    nobody.bind_global(() => {});
    const channel = nobody.channels.add('presence-none', nobody);
    channel.authorize = (id, done) => nobody.config.channelAuthorizer({ socketId: id, channelName: 'presence-none' },
      (error, data) => done(error, { auth: data?.auth }));
    await until(() => nobody.connection.state === 'connected', 'a connection');
    channel.subscribe();
    const refused = await until(() => frames.find((event) => event.event === 'pusher:subscription_error'), 'the refusal', 30000, () => frames);
    assert.equal(refused.data.status, 400);
  });

  test('client events say who sent them', async () => {
    const [a, b] = [await collect(as('ada'), 'presence-talk', ['client-hi']), await collect(as('bob'), 'presence-talk', ['client-hi'])];
    a.channel.trigger('client-hi', { x: 1 });
    await all(b, 1);
    assert.deepEqual([b[0].data, b[0].user_id], [{ x: 1 }, 'ada']);
    assert.equal(a.length, 0);
  });
});

describe('cache channels', () => {
  test('begin with the newest message, or say that there is none', async () => {
    const early = await collect(as('ada'), 'cache-state', ['pusher:cache_miss', 'set']);
    await all(early, 1);
    assert.equal(early[0].event, 'pusher:cache_miss');
    await program.broadcast('cache-state', { n: 1 }, ", event: 'set'");
    await program.broadcast('cache-state', { n: 2 }, ", event: 'set'");
    await all(early, 3);
    for (const name of ['cache-state', 'private-cache-state', 'presence-cache-state']) {
      if (name !== 'cache-state') await program.broadcast(name, { n: 2 }, ", event: 'set'");
      const late = await collect(as('bob'), name, ['pusher:cache_miss', 'set']);
      await all(late, 1);
      assert.deepEqual(late.map((it) => [it.event, it.data]), [['set', { n: 2 }]], name);
    }
  });

  test('that are encrypted too: what the newest says is read with the secret that PHP gives', async () => {
    const name = 'private-encrypted-cache-state';
    const early = await collect(as('ada'), name, ['pusher:cache_miss', 'set']);
    await all(early, 1);
    assert.equal(early[0].event, 'pusher:cache_miss');
    const sdk = new PusherServer({
      appId: APP.id, key: APP.key, secret: APP.secret, host: '127.0.0.1', port: program.port, useTLS: false, encryptionMasterKeyBase64: MASTER_KEY,
    });
    await sdk.trigger(name, 'set', { n: 1 });
    await sdk.trigger(name, 'set', { n: 2 });
    await all(early, 3);
    const late = await collect(as('bob'), name, ['pusher:cache_miss', 'set']);
    await all(late, 1);
    assert.deepEqual(late.map((it) => [it.event, it.data]), [['set', { n: 2 }]]);
    assert.doesNotMatch(await program.php(`echo json_encode(rt_history('${name}'));`), /"n"/, 'the server keeps what it cannot read');
  });
});

describe('Laravel Echo', () => {
  test('listens, whispers, and knows who is there, as with Reverb', async () => {
    const echo = (id) => {
      const { port } = new URL(program.url);
      const user = `['user_id' => '${id}', 'user_info' => ['name' => 'The ${id}']]`;
      const made = new Echo({
        broadcaster: 'reverb', Pusher, key: APP.key, wsHost: '127.0.0.1', wsPort: Number(port), forceTLS: false, enabledTransports: ['ws'],
        channelAuthorization: authorizer(program, user),
      });
      open.push(made);
      return made;
    };
    const [a, b] = [echo('ada'), echo('bob')];
    const got = [];
    await new Promise((done) => a.private('orders.1').listen('OrderShipped', (event) => got.push(event)).subscribed(done));
    await program.broadcast('private-orders.1', { id: 1 }, ", event: 'App\\\\Events\\\\OrderShipped'");
    await until(() => got.length === 1, 'the event');
    assert.deepEqual(got, [{ id: 1 }]);
    const heard = [];
    const here = await new Promise((done) => a.join('room').here(done).joining((user) => heard.push(['joining', user]))
      .leaving((user) => heard.push(['leaving', user])).listenForWhisper('typing', (event) => heard.push(['typing', event])));
    assert.deepEqual(here, [{ name: 'The ada' }]);
    const room = b.join('room');
    await new Promise((done) => room.here(done));
    room.whisper('typing', { n: 1 });
    await until(() => heard.length === 2, 'the whisper', 30000, () => heard);
    b.leave('room');
    await until(() => heard.length === 3, 'the leave', 30000, () => heard);
    assert.deepEqual(heard, [['joining', { name: 'The bob' }], ['typing', { n: 1 }], ['leaving', { name: 'The bob' }]]);
  });

  test('leaves out the author of a broadcast by X-Socket-ID, as toOthers() does', async () => {
    const { port } = new URL(program.url);
    const echo = new Echo({
      broadcaster: 'reverb', Pusher, key: APP.key, wsHost: '127.0.0.1', wsPort: Number(port), forceTLS: false, enabledTransports: ['ws'],
    });
    open.push(echo);
    const got = [];
    await new Promise((done) => echo.channel('others').listenToAll((event, data) => got.push(data)).subscribed(done));
    await program.broadcast('others', 1, `, except: '${echo.socketId()}'`);
    await program.broadcast('others', 2);
    await until(() => got.length >= 1, 'the second');
    await sleep(80);
    assert.deepEqual(got.filter((data) => typeof data === 'number'), [2]);
  });
});
