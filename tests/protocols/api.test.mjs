// The HTTP API, judged by the `pusher` SDK, and what it refuses.

import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { after, afterEach, before, describe, test as run } from 'node:test';
import { all, APP, authorizer, client, collect, connected, PusherServer, server, sleep, until } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);

let program;
let sdk;
const open = [];

const sdkOf = (program, more = {}) => new PusherServer({
  appId: APP.id, key: APP.key, secret: APP.secret, host: '127.0.0.1', port: program.port, useTLS: false, ...more,
});

before(async () => {
  program = await server({ 'realtime.presence_grace': 0 });
  sdk = sdkOf(program);
});
after(() => program.end());
afterEach(() => { for (const pusher of open.splice(0)) pusher.disconnect(); });

function join(options = {}, where = program) {
  const pusher = client(where, options);
  open.push(pusher);
  return pusher;
}

const member = (id) => ({ channelAuthorization: authorizer(program, `['user_id' => '${id}']`) });
const failure = (call) => call.then(() => assert.fail('it was taken'), (error) => error.status);

describe('publishing', () => {
  test('reaches pusher-js clients, with the data that was sent', async () => {
    const got = await collect(join(), 'a', ['x']);
    const answer = await sdk.trigger('a', 'x', { n: 1, text: 'ä"\u{1f600}' });
    assert.deepEqual([answer.status, await answer.json()], [200, {}]);
    await sdk.trigger(['b', 'a'], 'x', 'no JSON');
    await sdk.triggerBatch([{ channel: 'a', name: 'x', data: 1 }, { channel: 'a', name: 'x', data: [2] }]);
    await sdk.trigger(['a', 'a'], 'x', 'named twice');
    await sdk.trigger('a', 'x', 'last');
    await all(got, 6);
    assert.deepEqual(got.map((it) => it.data), [{ n: 1, text: 'ä"\u{1f600}' }, 'no JSON', 1, [2], 'named twice', 'last']);
  });

  test('leaves out a socket', async () => {
    const [a, b] = [join(), join()];
    const [mine, theirs] = [await collect(a, 'a', ['x']), await collect(b, 'a', ['x'])];
    await sdk.trigger('a', 'x', 1, { socket_id: a.connection.socket_id });
    await all(theirs, 1);
    assert.equal(mine.length, 0);
  });

  test('answers what was asked about the channels', async () => {
    await collect(join(member('ada')), 'presence-info');
    const answer = await sdk.trigger(['presence-info', 'empty'], 'x', 1, { info: 'user_count,subscription_count' });
    assert.deepEqual(await answer.json(), { channels: {
      'presence-info': { user_count: 1, subscription_count: 1 }, empty: { subscription_count: 0 },
    } });
    const batch = await sdk.triggerBatch([{ channel: 'presence-info', name: 'x', data: 1, info: 'user_count' }, { channel: 'empty', name: 'x', data: 1 }]);
    assert.deepEqual(await batch.json(), { batch: [{ user_count: 1 }, {}] });
  });

  test('to an encrypted channel is read with the key of the application', async () => {
    const secret = sdkOf(program, { encryptionMasterKeyBase64: Buffer.alloc(32, 7).toString('base64') });
    const got = await collect(join({ channelAuthorization: authorizer(program) }), 'private-encrypted-a', ['x']);
    await secret.trigger('private-encrypted-a', 'x', { deep: 1 });
    await all(got, 1);
    assert.deepEqual(got[0].data, { deep: 1 });
  });

  test('reaches a user on all of its connections', async () => {
    const auth = { userAuthentication: authorizer(program, "['id' => 'ada']") };
    const both = [join(auth), join(auth)].map((pusher) => {
      const got = [];
      pusher.signin();
      pusher.user.bind('note', (data) => got.push(data));
      return got;
    });
    await until(async () => {
      await sdk.sendToUser('ada', 'note', { n: 1 });
      return both.every((got) => got.length);
    }, 'the notes', 30000, () => both);
    await sdk.sendToUser('bob', 'note', { n: 2 });
    await sleep(100);
    assert.ok(both.flat().every((data) => data.n === 1));
    // The user's own channel is nobody's to list.
    const { channels } = await (await sdk.get({ path: '/channels' })).json();
    assert.ok(!Object.keys(channels).some((name) => name.includes('#')), Object.keys(channels).join());
  });
});

describe('looking', () => {
  test('lists channels, their numbers and their users', async () => {
    await collect(join(member('ada')), 'presence-look');
    await collect(join(member('bob')), 'presence-look');
    await collect(join(), 'look');
    await sdk.trigger('cache-look', 'x', { n: 1 });
    const get = async (path, params) => (await sdk.get({ path, params })).json();
    const all = await get('/channels', {});
    assert.deepEqual(all.channels['look'], {});
    assert.deepEqual(await get('/channels', { filter_by_prefix: 'presence-look', info: 'user_count' }), { channels: { 'presence-look': { user_count: 2 } } });
    assert.deepEqual(await get('/channels/presence-look', { info: 'user_count,subscription_count' }), { occupied: true, user_count: 2, subscription_count: 2 });
    assert.deepEqual(await get('/channels/nobody', {}), { occupied: false });
    assert.deepEqual(await get('/channels/cache-look', { info: 'cache' }), { occupied: false, cache: { data: '{"n":1}' } });
    assert.deepEqual(await get('/channels/presence-look/users', {}), { users: [{ id: 'ada' }, { id: 'bob' }] });
    assert.equal(await failure(sdk.get({ path: '/channels', params: { info: 'user_count' } })), 400);
    assert.equal(await failure(sdk.get({ path: '/channels/look', params: { info: 'user_count' } })), 400);
    assert.equal(await failure(sdk.get({ path: '/channels/look/users', params: {} })), 400);
  });
});

test('a user\'s connections are ended with 4009, and no others', async () => {
  const [ada, bob] = ['ada', 'bob'].map((id) => join({ userAuthentication: authorizer(program, `['id' => '${id}']`) }));
  for (const pusher of [ada, bob]) {
    pusher.signin();
    await until(() => pusher.user.user_data, 'the sign-in', 30000, () => pusher.errors);
  }
  await sdk.terminateUserConnections('ada');
  await until(() => ada.connection.state === 'disconnected', 'the end');
  assert.ok(ada.errors.some((error) => error.code === 4009), JSON.stringify(ada.errors));
  await sleep(100);
  assert.equal(bob.connection.state, 'connected');
});

describe('what is refused', () => {
  /** A request signed by hand, so that each part can be wrong. Returns the status. */
  async function ask(path, body, { method = 'POST', secret = APP.secret, change = {}, drop = [], alter = (text) => text } = {}) {
    const query = {
      auth_key: APP.key, auth_timestamp: Math.floor(Date.now() / 1000), auth_version: '1.0',
      ...(body && { body_md5: createHash('md5').update(body).digest('hex') }), ...change,
    };
    for (const name of drop) delete query[name];
    const text = Object.keys(query).sort().map((name) => `${name}=${query[name]}`).join('&');
    const signature = createHmac('sha256', secret).update(`${method}\n${path}\n${text}`).digest('hex');
    const response = await fetch(`${program.url.slice(0, -1)}${path}?${text}&auth_signature=${signature}`, { method, body: body && alter(body) });
    const answer = await response.json();
    assert.ok(response.ok || answer.error.message, JSON.stringify(answer));
    return response.status;
  }
  const events = `/apps/${APP.id}/events`;
  const event = (more = {}) => JSON.stringify({ name: 'x', channel: 'a', data: '1', ...more });

  test('wrong signatures: 401', async () => {
    const now = Math.floor(Date.now() / 1000);
    assert.equal(await ask(events, event()), 200);
    assert.equal(await ask(events, event(), { secret: 'another-secret-of-the-tests' }), 401);
    assert.equal(await ask(events, event(), { change: { auth_timestamp: now - 605 } }), 401);
    assert.equal(await ask(events, event(), { change: { auth_timestamp: now + 660 } }), 401);
    assert.equal(await ask(events, event(), { change: { auth_timestamp: 'x' } }), 401);
    assert.equal(await ask(events, event(), { change: { auth_version: '2.0' } }), 401);
    assert.equal(await ask(events, event(), { change: { auth_key: 'other-key' } }), 401);
    assert.equal(await ask(events, event(), { change: { body_md5: '0'.repeat(32) } }), 401);
    assert.equal(await ask(events, event(), { alter: (text) => `${text} ` }), 401);
    for (const name of ['auth_key', 'auth_timestamp', 'auth_version', 'body_md5']) {
      assert.equal(await ask(events, event(), { drop: [name] }), 401, name);
    }
    assert.equal((await fetch(`${program.url}apps/${APP.id}/channels`)).status, 401);
    assert.equal(await ask('/apps/other/events', event()), 401);
  });

  test('what does not fit: 400, 404, 405, 413', async () => {
    const bad = [
      '', 'nonsense', '[]', '{}', event({ name: 7 }), event({ name: '' }), event({ name: 'x'.repeat(201) }), event({ name: 'pusher:x' }), event({ data: {} }),
      event({ channel: 'a b' }), event({ channel: undefined }), event({ channels: ['b'] }), event({ channel: undefined, channels: [] }),
      event({ channel: undefined, channels: Array.from({ length: 101 }, (_, n) => `c${n}`) }), event({ socket_id: 'x' }),
    ];
    for (const body of bad) assert.equal(await ask(events, body || undefined), 400, body.slice(0, 80));
    assert.equal(await ask(events, event({ channels: null })), 200);
    assert.equal(await ask(events, event({ channel: undefined, channels: Array.from({ length: 100 }, (_, n) => `c${n}`) })), 200);
    assert.equal(await ask(events, event({ data: 'x'.repeat(10 * 1024 + 1) })), 413);
    assert.equal(await ask(events, event({ data: 'x'.repeat(10 * 1024) })), 200);
    assert.equal(await ask(events, `"${'x'.repeat(600 * 1024)}"`), 413);
    const batch = (count) => JSON.stringify({ batch: Array.from({ length: count }, () => ({ name: 'x', channel: 'a', data: '1' })) });
    assert.equal(await ask(`/apps/${APP.id}/batch_events`, batch(10)), 200);
    assert.equal(await ask(`/apps/${APP.id}/batch_events`, batch(11)), 400);
    assert.equal(await ask('/apps/none/events', event()), 404);
    assert.equal(await ask(`/apps/${APP.id}/nothing`, event()), 404);
    assert.equal(await ask(events, undefined, { method: 'GET' }), 405);
    assert.equal(await ask(`/apps/${APP.id}/channels`, event()), 405);
  });

  test('and nobody else is kept from anything by it', async () => {
    const pusher = join();
    await connected(pusher);
    const got = await collect(pusher, 'still', ['x']);
    await sdk.trigger('still', 'x', 1);
    await all(got, 1);
  });
});
