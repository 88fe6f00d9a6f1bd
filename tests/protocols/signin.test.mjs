// pusher:signin, when it does not go as it should: each mistake, what the client is told, and whether it stays.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, afterEach, before, test as run } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { APP, bare, client, server, sleep, until } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const SECRET = 'a-secret-of-the-tests-that-is-long-enough';
const open = [];
let program;

before(async () => { program = await server({ 'realtime.secret': SECRET, 'realtime.max_connections_per_user': 2 }); });
after(() => program?.end());
afterEach(() => { for (const it of open.splice(0)) it.disconnect(); });

/** A connected socket that can sign in with what its application signs. */
async function connect(query) {
  const socket = bare(program, query);
  open.push(socket);
  const { data: { socket_id: id } } = await socket.next((frame) => frame.data?.socket_id, 'the greeting');
  const sign = (text) => `${APP.key}:${createHmac('sha256', APP.secret).update(`${id}::user::${text}`).digest('hex')}`;
  socket.signIn = (user, auth) => {
    const user_data = typeof user === 'string' ? user : JSON.stringify(user);
    socket.say({ event: 'pusher:signin', data: { auth: auth ?? sign(user_data), user_data } });
  };
  socket.count = (name) => socket.got.filter((frame) => frame.event === name).length;
  socket.success = (count = 1) => until(() => socket.count('pusher:signin_success') === count, 'the sign-in', 30000, () => socket.got);
  return socket;
}

/** Waits until PHP knows of these users, and of no other connection: those of the test before may still be about to end. */
const users = (...expected) => until(async () => {
  const all = JSON.parse(await program.php('echo json_encode(array_map(fn ($c) => $c->user, rt_connections()));')).sort();
  return isDeepStrictEqual(all, expected);
}, `the users ${JSON.stringify(expected)}`, 30000, () => program.php('echo json_encode(rt_connections());'));

test('user data without a user, too much of it, or signed for another connection: 4009, and it stays away', async () => {
  const bad = {
    'no JSON': ['nonsense', /no id/], 'no object': ['[1]', /no id/], 'no id': ['{}', /no id/], 'an id that is null': ['{"id":null}', /no id/],
    'an empty id': ['{"id":""}', /no user's/], 'a long id': [{ id: 'x'.repeat(201) }, /no user's/], 'a control character': [{ id: 'a\nb' }, /no user's/],
    'over 10 KB': [{ id: 'ada', more: 'x'.repeat(10 * 1024) }, /over 10 KB/],
    'a watchlist that is none': ['{"id":"ada","watchlist":7}', /no id/],
  };
  for (const [what, [user, why]] of Object.entries(bad)) {
    const socket = await connect();
    socket.signIn(user);
    const { closed, reason } = await socket.next((frame) => frame.closed, what);
    assert.equal(closed, 4009, what);
    assert.match(reason, why, what);
    assert.equal(socket.errors()[0].code, 4009, what);
    assert.equal(socket.count('pusher:signin_success'), 0, what);
  }
  const [one, other] = [await connect(), await connect()];
  one.signIn({ id: 'ada' }, `${APP.key}:${createHmac('sha256', APP.secret).update('1.1::user::{"id":"ada"}').digest('hex')}`);
  assert.equal((await one.next((frame) => frame.closed, 'the end')).closed, 4009);
  other.signIn({ id: 'ada' }, `other-key:${'0'.repeat(64)}`);
  assert.equal((await other.next((frame) => frame.closed, 'the end')).closed, 4009);
  await users();
});

test('as large as user data may be, and ids that are numbers', async () => {
  const socket = await connect();
  const user = { id: 7, more: '' };
  user.more = 'x'.repeat(10 * 1024 - JSON.stringify(user).length);
  socket.signIn(user);
  await socket.success();
  await users('7');
});

test('a second time as the same user is answered again, as another is an error', async () => {
  const socket = await connect();
  socket.signIn({ id: 'ada' });
  await socket.success();
  socket.signIn({ id: 'ada' });
  await socket.success(2);
  socket.signIn({ id: 'bob' });
  const error = await socket.next((frame) => frame.event === 'pusher:error', 'the error');
  assert.deepEqual([error.data.code, error.data.message], [null, 'already signed in as another user']);
  await users('ada');
  assert.equal(socket.socket.readyState, 1, 'it goes on');
});

test('the connection\'s token may say who it is: then as nobody else', async () => {
  const token = await program.php("echo rt_token(['sub' => 'eve']);");
  const same = await connect(`?protocol=7&token=${token}`);
  same.signIn({ id: 'eve' });
  await same.success();
  // One connection is one of those that the user may have, though it has said twice who it is.
  const other = await connect(`?protocol=7&token=${token}`);
  other.signIn({ id: 'ada' });
  const { closed, reason } = await other.next((frame) => frame.closed, 'the end');
  assert.deepEqual([closed, reason], [4009, 'the connection\'s token is another user\'s']);
});

test('over realtime.max_connections_per_user: 4100 as an error, the connection goes on without a user', async () => {
  const sockets = [await connect(), await connect(), await connect()];
  for (const socket of sockets.slice(0, 2)) {
    socket.signIn({ id: 'many' });
    await socket.success();
  }
  const [first, , third] = sockets;
  third.signIn({ id: 'many' });
  const error = await third.next((frame) => frame.event === 'pusher:error', 'the error');
  assert.equal(error.data.code, 4100);
  third.say({ event: 'pusher:subscribe', data: { channel: 'news' } });
  await third.next((frame) => frame.event === 'pusher_internal:subscription_succeeded', 'a subscription all the same');
  await users('many', 'many', null);
  first.disconnect();
  await users('many', null);
  third.signIn({ id: 'many' });
  await third.success();
});

test('a watchlist of more than 100: signed in, told 4302, and of the first 100', async () => {
  const socket = await connect();
  const watchlist = Array.from({ length: 101 }, (_, n) => `user-${n}`);
  socket.signIn({ id: 'eve', watchlist });
  await socket.success();
  const { data } = await socket.next((frame) => frame.event === 'pusher_internal:watchlist_events', 'the first look');
  assert.deepEqual(socket.errors().map((error) => error.code), [4302]);
  const [offline] = data.events;
  assert.deepEqual([data.events.length, offline.name, [...offline.user_ids].sort()], [1, 'offline', watchlist.slice(0, 100).sort()]);
  // Of those that are left out nothing is told.
  for (const id of ['user-100', 'user-5']) {
    const friend = await connect();
    friend.signIn({ id });
    await friend.success();
  }
  await until(() => socket.count('pusher_internal:watchlist_events') === 2, 'the second look', 30000, () => socket.got);
  await sleep(50);
  const looks = socket.got.filter((frame) => frame.event === 'pusher_internal:watchlist_events');
  assert.deepEqual(looks.at(-1).data.events, [{ name: 'online', user_ids: ['user-5'] }]);
  const full = await connect();
  full.signIn({ id: 'bob', watchlist: watchlist.slice(0, 100) });
  await full.success();
  await full.next((frame) => frame.event === 'pusher_internal:watchlist_events', 'the first look');
  assert.deepEqual(full.errors(), []);
});

test('pusher-js goes on after 4302, and hears of it', async () => {
  const pusher = client(program, { userAuthentication: {
    customHandler({ socketId }, done) {
      const user_data = JSON.stringify({ id: 'eve', watchlist: Array.from({ length: 150 }, (_, n) => `u${n}`) });
      done(null, { auth: `${APP.key}:${createHmac('sha256', APP.secret).update(`${socketId}::user::${user_data}`).digest('hex')}`, user_data });
    },
  } });
  open.push(pusher);
  const offline = [];
  pusher.user.watchlist.bind('offline', (event) => offline.push(...event.user_ids));
  pusher.signin();
  await until(() => offline.length === 100 && pusher.user.user_data, 'the sign-in and the look', 30000, () => [offline.length, pusher.errors]);
  assert.deepEqual(pusher.errors.map((error) => error.code), [4302]);
  await sleep(200);
  assert.equal(pusher.connection.state, 'connected');
});
