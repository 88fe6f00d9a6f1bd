// Our client on presence channels: who is there, who comes and who goes, over every transport and over lost connections.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, afterEach, before, describe, test as run } from 'node:test';
import WebSocket from 'ws';
import { Realtime } from '../../php/client/realtime.js';
import { Program, Wire, launch, until } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const secret = 'a-secret-of-the-tests-that-is-long-enough';
const open = [];
let server, hasty;

const settings = { 'realtime.secret': secret, 'realtime.ping_interval': 1 };

function token(user) {
  const now = Date.now() / 1000;
  const claims = { iat: now, exp: now + 600, sub: user, channels: 'presence-*', info: { name: user.toUpperCase() } };
  const text = [{ alg: 'HS256', typ: 'JWT' }, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

/** A client of a user's; what it is told of who comes and goes is in `told`. */
function client(user, { base = server.url, ...options } = {}) {
  const rt = new Realtime(base, { WebSocket, minDelay: 50, maxDelay: 400, token: () => token(user), ...options });
  rt.told = [];
  rt.log = [];
  for (const event of ['join', 'leave']) rt.on(event, (member) => rt.told.push(`${event} ${member.user} ${member.info?.name}`));
  for (const event of ['open', 'close', 'error', 'gap']) rt.on(event, (info) => rt.log.push({ event, code: info.code }));
  rt.enter = async (channel) => {
    await rt.subscribe(channel, () => {}).ready;
    return rt;
  };
  rt.users = (channel) => rt.presence(channel).map(({ user }) => user).sort();
  open.push(rt);
  return rt;
}

const told = (rt, expected) => until(() => rt.told.length >= expected.length, 'what was to be told', 30000, () => [rt.told, rt.log])
  .then(() => assert.deepEqual(rt.told, expected));

const there = (channel, of = server) => of.php(`echo json_encode(array_map(fn($m) => $m['connections'], rt_presence('${channel}')));`);

before(async () => {
  server = await new Program('tests/browser/server.php', { ...settings, 'realtime.presence_grace': 600 }).start();
  // Long enough for a stream that is opened anew for another channel, whose old connection may end first.
  hasty = await new Program('tests/browser/server.php', { ...settings, 'realtime.presence_grace': 2 }).start();
});
after(() => Promise.all([server.end(), hasty.end()]));
afterEach(() => {
  for (const rt of open.splice(0)) rt.close();
});

for (const kind of ['ws', 'sse', 'poll']) {
  describe(kind, () => {
    test('knows who is there, and is told once who comes and goes', async () => {
      const channel = `presence-${kind}`;
      const base = hasty.url;
      const ada = await client('ada', { base, transports: [kind] }).enter(channel);
      assert.deepEqual(ada.presence(channel), [{ user: 'ada', info: { name: 'ADA' } }]);
      const bob = await client('bob', { base, transports: [kind] }).enter(channel);
      assert.deepEqual(bob.users(channel), ['ada', 'bob']);
      await told(ada, ['join bob BOB']);
      const second = await client('bob', { base }).enter(channel);
      await second.close();
      const eve = await client('eve', { base }).enter(channel);
      await told(ada, ['join bob BOB', 'join eve EVE']);
      assert.deepEqual(ada.users(channel), ['ada', 'bob', 'eve']);
      eve.close();
      // Of those who are there already nobody is told as if they had just come.
      await told(bob, ['join eve EVE', 'leave eve EVE']);
      await told(ada, ['join bob BOB', 'join eve EVE', 'leave eve EVE']);
      assert.deepEqual(ada.users(channel), ['ada', 'bob']);
      assert.deepEqual(ada.presence('presence-other'), []);
    });

    test('a connection that is lost and comes back is neither left nor joined', async () => {
      const channel = `presence-lost-${kind}`;
      const ada = await client('ada').enter(channel);
      const wire = await new Wire(server.port).open();
      try {
        const bob = await client('bob', { base: wire.url, transports: [kind] }).enter(channel);
        await told(ada, ['join bob BOB']);
        wire.down = true;
        wire.cut();
        await until(() => bob.state === 'connecting', 'a lost connection');
        // What happens meanwhile it is told when it is back.
        const eve = await client('eve').enter(channel);
        await told(ada, ['join bob BOB', 'join eve EVE']);
        wire.down = false;
        await told(bob, ['join eve EVE']);
        assert.deepEqual(bob.users(channel), ['ada', 'bob', 'eve']);
        eve.close();
        await bob.enter(`${channel}-2`);
        assert.deepEqual(ada.told, ['join bob BOB', 'join eve EVE']);
        assert.match(await there(channel), /"ada":1,"bob":[1-9],"eve":[01]/);
      } finally {
        await wire.close();
      }
    });
  });
}

test('unsubscribing is leaving', async () => {
  const ada = await client('ada').enter('presence-off');
  const bob = client('bob');
  const off = bob.subscribe('presence-off', () => {});
  await off.ready;
  await told(ada, ['join bob BOB']);
  off();
  await told(ada, ['join bob BOB', 'leave bob BOB']);
  assert.deepEqual(bob.presence('presence-off'), []);
});

test('a server that is killed leaves no ghosts', async () => {
  const own = await new Program('tests/browser/server.php', { ...settings, 'realtime.presence_grace': 600 }).startAgainLater();
  try {
    const channel = 'presence-crash';
    const ada = await client('ada', { base: own.url }).enter(channel);
    const bob = await client('bob', { base: own.url }).enter(channel);
    await told(ada, ['join bob BOB']);
    await own.stop('SIGKILL');
    bob.close();
    await own.start();
    await told(ada, ['join bob BOB', 'leave bob BOB']);
    assert.equal(await there(channel, own), '{"ada":1}');
  } finally {
    await own.end();
  }
});

test('tabs of a real browser are one member, and a reload is nothing', async () => {
  const channel = 'presence-tabs';
  const ada = await client('ada').enter(channel);
  const browser = await launch();
  try {
    const context = await browser.newContext();
    const visit = async () => {
      const page = await context.newPage();
      await page.goto(`${server.url}healthz`);
      return page;
    };
    const enter = (page) => page.evaluate(async ([from, jwt, name]) => {
      const { Realtime } = await import(from);
      const rt = new Realtime('/', { token: () => jwt });
      await rt.subscribe(name, () => {}).ready;
      return rt.presence(name).map(({ user }) => user).sort();
    }, [`${server.url}realtime.js`, token('bob'), channel]);
    const pages = [await visit(), await visit()];
    for (const page of pages) assert.deepEqual(await enter(page), ['ada', 'bob']);
    await pages[0].reload();
    assert.deepEqual(await enter(pages[0]), ['ada', 'bob']);
    for (const page of pages) await page.reload();
    await until(async () => (await there(channel)) === '{"ada":1,"bob":0}', 'nobody but ada', 30000);
    assert.deepEqual(await enter(pages[1]), ['ada', 'bob']);
    assert.deepEqual(ada.told, ['join bob BOB']);
  } finally {
    await browser.close();
  }
});
