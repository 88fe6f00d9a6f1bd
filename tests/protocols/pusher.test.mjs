// pusher-js against the real server: channels, signatures, client events, users, and what a connection is told when it may not.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test as run } from 'node:test';
import WebSocket from 'ws';
import { all, APP, authorizer, bare as bareSocket, client, collect, connected, server, sign, sleep, until, Wire } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);

let program;
const open = [];
const user = (id, more = '') => `['user_id' => '${id}', 'user_info' => ['name' => 'The ${id}']${more}]`;

/** A client that is disconnected at the end of the test. */
function join(options = {}, where = program) {
  const pusher = client(where, options);
  open.push(pusher);
  return pusher;
}

/** A bare WebSocket that ends with the test. */
async function bare(query, key) {
  const made = bareSocket(program, query, key);
  open.push(made);
  return made;
}

before(async () => { program = await server(); });
after(() => program.end());
afterEach(() => { for (const pusher of open.splice(0)) pusher.disconnect(); });

describe('public channels', () => {
  test('what PHP broadcasts arrives, with its event and data as published', async () => {
    const got = await collect(join(), 'orders', ['message', 'paid']);
    await program.broadcast('orders', { id: 42, text: 'ä "quoted" \\ \u{1f600}' });
    await program.broadcast('orders', '5', ", event: 'paid'");
    await program.broadcast('orders', 'plain', ", event: 'paid'");
    await program.broadcast('orders', [1.5, null, true]);
    await all(got, 4);
    assert.deepEqual(got.map(({ event, data }) => [event, data]), [
      ['message', { id: 42, text: 'ä "quoted" \\ \u{1f600}' }], ['paid', '5'], ['paid', 'plain'], ['message', [1.5, null, true]],
    ]);
  });

  test('unsubscribing ends it, and PHP sees the connection', async () => {
    const pusher = join();
    const got = await collect(pusher, 'news');
    const seen = await program.php("foreach (rt_connections('news') as $c) { echo $c->transport, ' ', $c->path; }");
    assert.equal(seen, `pusher /app/${APP.key}`);
    pusher.unsubscribe('news');
    await until(async () => await program.php("echo count(rt_connections('news'));") === '0', 'the end of the subscription');
    await program.broadcast('news', 1);
    await sleep(100);
    assert.equal(got.length, 0);
  });

  test('the author of a broadcast is left out by its socket_id', async () => {
    const [a, b] = [join(), join()];
    const [first, second] = [await collect(a, 'others'), await collect(b, 'others')];
    await program.broadcast('others', 1, `, except: '${a.connection.socket_id}'`);
    await program.broadcast('others', 2);
    await all(first, 1);
    await all(second, 2);
    assert.deepEqual([first.map((it) => it.data), second.map((it) => it.data)], [[2], [1, 2]]);
  });

  test('native clients and Pusher clients are on the same channel, both ways', async () => {
    const got = await collect(join(), 'both', ['message', 'said']);
    const native = new WebSocket(`${program.url.replace('http', 'ws')}ws`);
    const frames = [];
    native.on('message', (text) => frames.push(JSON.parse(text)));
    open.push({ disconnect: () => native.terminate() });
    await until(() => frames.length === 1, 'a welcome');
    native.send('{"type":"subscribe","channel":"both"}');
    await until(() => frames.length === 2, 'a subscription');
    native.send('{"type":"publish","channel":"both","event":"said","data":{"n":1}}');
    await all(got, 1);
    assert.deepEqual(got[0], { event: 'said', data: { n: 1 } });
    await program.broadcast('both', { n: 2 });
    await until(() => frames.some((frame) => frame.type === 'message' && frame.data.n === 2), 'the message', 30000, () => frames);
  });

  test('a client sees what it sends and is sent', async () => {
    const { got, say, next } = await bare();
    const first = await next((frame) => frame.event === 'pusher:connection_established', 'the greeting');
    assert.match(first.data.socket_id, /^\d+\.\d+$/);
    assert.ok(first.data.activity_timeout > 0);
    say({ event: 'pusher:ping', data: {} });
    await next((frame) => frame.event === 'pusher:pong', 'a pong');
    say({ event: 'pusher:subscribe', data: { channel: 'x' } });
    await next((frame) => frame.event === 'pusher_internal:subscription_succeeded' && frame.channel === 'x', 'a subscription');
    assert.equal(got.length, 3);
  });

  test('a connection that has gone without a word is ended', async () => {
    const quick = await server({ 'realtime.ping_interval': 1 });
    try {
      const pusher = join({}, quick);
      await connected(pusher);
      const wire = await new Wire(quick.port).open();
      const frozen = client(wire);
      open.push(frozen);
      await connected(frozen);
      wire.frozen = true;
      await until(async () => await quick.php("echo count(rt_connections());") === '1', 'the end of the silent one');
      // The other answers its pings and stays.
      assert.equal(pusher.connection.state, 'connected');
      wire.frozen = false;
      frozen.disconnect();
      await wire.close();
    } finally {
      await quick.end();
    }
  });
});

describe('guarded channels', () => {
  test('a private channel opens with a signature of the application', async () => {
    const pusher = join({ channelAuthorization: authorizer(program) });
    const got = await collect(pusher, 'private-a');
    await program.broadcast('private-a', 'psst');
    await all(got, 1);
    assert.equal(got[0].data, 'psst');
  });

  test('another signature, or none, does not open it, and the connection goes on', async () => {
    const { got, say, next, errors } = await bare();
    const { data: { socket_id: id } } = await next((frame) => frame.data?.socket_id, 'the greeting');
    const good = await sign(program, id, 'private-b');
    const other = await sign(program, '1.2', 'private-b');
    const bad = [undefined, '', 'x', `${APP.key}:`, other.auth, good.auth.replace(APP.key, 'other-key'), `${good.auth.slice(0, -1)}x`];
    for (const auth of bad) say({ event: 'pusher:subscribe', data: { channel: 'private-b', auth } });
    const refused = () => got.filter((frame) => frame.event === 'pusher:subscription_error');
    await until(() => errors().length === bad.length && refused().length === bad.length, 'all errors', 30000, () => got);
    assert.deepEqual(refused().map((frame) => [frame.channel, frame.data.type, frame.data.status]), bad.map(() => ['private-b', 'AuthError', 401]));
    assert.deepEqual(errors().map((error) => error.code), bad.map(() => 4009));
    say({ event: 'pusher:subscribe', data: { channel: 'private-b', auth: good.auth } });
    await next((frame) => frame.event === 'pusher_internal:subscription_succeeded', 'the subscription');
  });

  test('a signature for a channel whose name goes on behind a colon opens no other', async () => {
    const { say, next, errors } = await bare();
    const { data: { socket_id: id } } = await next((frame) => frame.data?.socket_id, 'the greeting');
    const { auth } = await sign(program, id, 'private-team:lobby');
    for (const [channel, channel_data] of [['private-team', 'lobby'], ['private-encrypted-x', 'y']]) {
      say({ event: 'pusher:subscribe', data: { channel, channel_data, auth } });
      const refused = await next((frame) => frame.event === 'pusher:subscription_error' && frame.channel === channel, 'the refusal');
      assert.deepEqual([refused.data.type, refused.data.status], ['AuthError', 401]);
    }
    await until(() => errors().length === 2, 'an error each');
    say({ event: 'pusher:subscribe', data: { channel: 'private-team:lobby', auth } });
    await next((frame) => frame.event === 'pusher_internal:subscription_succeeded', 'the subscription');
  });

  test('pusher-js hears of a refused subscription', async () => {
    const wrong = { customHandler: (_, done) => done(null, { auth: `${APP.key}:${'0'.repeat(64)}` }) };
    const pusher = join({ channelAuthorization: wrong });
    const channel = pusher.subscribe('private-c');
    const heard = await new Promise((done) => channel.bind('pusher:subscription_error', done));
    assert.deepEqual([heard.type, heard.status], ['AuthError', 401]);
    assert.equal(pusher.connection.state, 'connected');
  });

  test('an encrypted channel is passed through, and read with the secret that PHP gives', async () => {
    const pusher = join({ channelAuthorization: authorizer(program) });
    const got = await collect(pusher, 'private-encrypted-x', ['told']);
    const { default: nacl } = await import('tweetnacl');
    const { shared_secret: secret } = await sign(program, '1.2', 'private-encrypted-x');
    const nonce = nacl.randomBytes(24);
    const box = nacl.secretbox(Buffer.from('{"deep":"secret"}'), nonce, Buffer.from(secret, 'base64'));
    const base64 = (bytes) => Buffer.from(bytes).toString('base64');
    await program.broadcast('private-encrypted-x', { nonce: base64(nonce), ciphertext: base64(box) }, ", event: 'told'");
    await all(got, 1);
    assert.deepEqual(got[0].data, { deep: 'secret' });
  });
});

describe('client events', () => {
  test('reach the others on a private channel, and not their sender', async () => {
    const auth = { channelAuthorization: authorizer(program) };
    const [a, b] = [join(auth), join(auth)];
    const [mine, theirs] = [await collect(a, 'private-talk', ['client-typing']), await collect(b, 'private-talk', ['client-typing'])];
    assert.ok(mine.channel.trigger('client-typing', { at: 1 }));
    await all(theirs, 1);
    assert.deepEqual(theirs[0].data, { at: 1 });
    assert.equal(mine.length, 0);
  });

  test('are refused on public channels, without a subscription, and under other names', async () => {
    const { say, next, errors, got } = await bare();
    const { data: { socket_id: id } } = await next((frame) => frame.data?.socket_id, 'the greeting');
    const { auth } = await sign(program, id, 'private-in');
    say({ event: 'pusher:subscribe', data: { channel: 'open' } });
    say({ event: 'pusher:subscribe', data: { channel: 'private-in', auth } });
    await until(() => got.length === 3, 'two subscriptions');
    const other = await collect(join({ channelAuthorization: authorizer(program) }), 'private-in', ['client-x', 'said', 'pusher:x']);
    const bad = [
      ['client-x', 'open'], ['client-x', 'private-out'], ['client-x', 'presence-out'], ['said', 'private-in'], ['pusher:x', 'private-in'],
      ['client-x', 'a b'], [`client-${'x'.repeat(200)}`, 'private-in'],
    ];
    for (const [event, channel] of bad) say({ event, channel, data: {} });
    await until(() => errors().length === bad.length, 'all errors', 30000, () => got);
    assert.ok(errors().every((error) => error.code === null && error.message));
    for (const nonsense of ['nonsense', '[]', '{}', '{"event":7}', '{"event":"client-x"}', '{"event":"pusher:subscribe","data":7}']) say(nonsense);
    await until(() => errors().length === bad.length + 6, 'more errors', 30000, () => got);
    say({ event: 'client-x', channel: 'private-in', data: 1 });
    await all(other, 1);
  });

  test('that come too fast are refused one by one with 4301', async () => {
    const { say, next, errors, got } = await bare();
    const { data: { socket_id: id } } = await next((frame) => frame.data?.socket_id, 'the greeting');
    const { auth } = await sign(program, id, 'private-fast');
    say({ event: 'pusher:subscribe', data: { channel: 'private-fast', auth } });
    await until(() => got.length === 2, 'a subscription');
    const other = await collect(join({ channelAuthorization: authorizer(program) }), 'private-fast', ['client-x']);
    for (let n = 0; n < 40; n++) say({ event: 'client-x', channel: 'private-fast', data: n });
    await until(() => errors().length + other.length === 40, 'all of them, one way or the other', 30000, () => [other.length, errors()]);
    assert.ok(errors().length >= 1 && errors().every((error) => error.code === 4301), JSON.stringify(errors()));
    assert.ok(other.length >= 10);
  });
});

describe('users', () => {
  const signer = (id, more = '') => ({ userAuthentication: authorizer(program, `['id' => '${id}', 'user_info' => ['x' => 1]${more}]`) });

  test('sign in, and are told of those whom they watch', async () => {
    const eve = join(signer('eve', ", 'watchlist' => ['ada', 'bob']"));
    const seen = [];
    for (const name of ['online', 'offline']) eve.user.watchlist.bind(name, (event) => seen.push(`${event.user_ids} ${name}`));
    eve.signin();
    await until(() => seen.length === 1, 'the first look', 30000, () => [seen, eve.errors]);
    const ada = join(signer('ada'));
    ada.signin();
    await until(() => seen.length === 2, 'her coming');
    ada.disconnect();
    await until(() => seen.length === 3, 'her going');
    assert.deepEqual(seen, ['ada,bob offline', 'ada online', 'ada offline']);
  });

  test('a wrong signature closes the connection with 4009', async () => {
    const wrong = { customHandler: (_, done) => done(null, { auth: `${APP.key}:${'0'.repeat(64)}`, user_data: '{"id":"eve"}' }) };
    const pusher = join({ userAuthentication: wrong });
    pusher.signin();
    await until(() => pusher.connection.state === 'disconnected', 'the end', 30000, () => pusher.errors);
    assert.ok(pusher.errors.some((error) => error.code === 4009), JSON.stringify(pusher.errors));
  });

  test('nobody gets another user\'s own channel', async () => {
    const { say, next } = await bare();
    await next((frame) => frame.data?.socket_id, 'the greeting');
    say({ event: 'pusher:subscribe', data: { channel: '#server-to-user-ada' } });
    const refused = await next((frame) => frame.event === 'pusher:subscription_error', 'the refusal');
    assert.equal(refused.data.status, 401);
  });
});

describe('connections that are refused', () => {
  const refused = async (query, key) => (await (await bare(query, key)).next((frame) => frame.closed, 'the close')).closed;

  test('are told by the code what to do', async () => {
    assert.equal(await refused('?protocol=7', 'no-key'), 4001);
    assert.equal(await refused(''), 4008);
    assert.equal(await refused('?protocol=x'), 4006);
    assert.equal(await refused('?protocol=99'), 4007);
    const pusher = join({ key: 'no-key' });
    await until(() => pusher.connection.state === 'disconnected', 'the end');
    assert.equal(pusher.errors[0].code, 4001);
  });

  test('over a limit are told to come back later', async () => {
    const small = await server({ 'realtime.max_connections': 1 });
    try {
      await connected(join({}, small));
      const socket = new WebSocket(`${small.url.replace('http', 'ws')}app/${APP.key}?protocol=7`);
      const code = await new Promise((done) => socket.on('close', done));
      assert.equal(code, 4100);
    } finally {
      await small.end();
    }
  });

  test('from foreign pages are told so', async () => {
    const socket = new WebSocket(`${program.url.replace('http', 'ws')}app/${APP.key}?protocol=7`, { origin: 'http://elsewhere.example' });
    const code = await new Promise((done) => socket.on('close', done));
    assert.equal(code, 4009);
  });

  test('nothing is there without an app', async () => {
    const off = await server({ 'realtime.pusher_app': '' });
    try {
      const socket = new WebSocket(`${off.url.replace('http', 'ws')}app/${APP.key}?protocol=7`);
      const status = await new Promise((done) => socket.on('unexpected-response', (_, response) => done(response.statusCode)));
      assert.equal(status, 404);
    } finally {
      await off.end();
    }
  });
});
