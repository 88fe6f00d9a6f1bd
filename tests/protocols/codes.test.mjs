// Pings and close codes: what the server sends, and what pusher-js does about it.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test as run } from 'node:test';
import { bare, client, connected, server, sleep, until } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const open = [];
let program;

before(async () => { program = await server({ 'realtime.ping_interval': 2 }); });
after(() => program?.end());
afterEach(() => { for (const it of open.splice(0)) it.disconnect(); });

function join(options = {}, where = program) {
  const pusher = client(where, options);
  open.push(pusher);
  return pusher;
}

async function socket(where = program, query, key) {
  const made = await bare(where, query, key);
  open.push(made);
  return made;
}

const pings = ({ got }) => got.filter((frame) => frame.event === 'pusher:ping').length;

describe('pings', () => {
  test('who does not answer pusher:ping is closed with 4201, and who does stays', async () => {
    const [silent, alive] = [await socket(), await socket()];
    alive.socket.on('message', (text) => {
      if (JSON.parse(text).event === 'pusher:ping') alive.say({ event: 'pusher:pong', data: {} });
    });
    await silent.next((frame) => frame.event === 'pusher:ping', 'a ping');
    const { closed } = await silent.next((frame) => frame.closed, 'the end');
    assert.equal(closed, 4201);
    assert.equal(pings(silent), 1, 'it is asked once');
    assert.deepEqual(silent.errors().map((error) => error.code), [4201]);
    await until(() => pings(alive) >= 3, 'pings to the other');
    assert.ok(!alive.got.some((frame) => frame.closed || frame.event === 'pusher:error'), JSON.stringify(alive.got));
  });

  test('pusher-js answers them', async () => {
    const pusher = join();
    await connected(pusher);
    const id = pusher.connection.socket_id;
    const seen = [];
    pusher.connection.bind('message', ({ event }) => seen.push(event));
    await until(() => seen.filter((event) => event === 'pusher:ping').length >= 3, 'pings', 30000, () => seen);
    assert.deepEqual([pusher.connection.state, pusher.connection.socket_id, pusher.errors], ['connected', id, []]);
  });

  test('and is answered when it asks by itself', async () => {
    const quiet = await server({ 'realtime.ping_interval': 30 });
    try {
      const pusher = join({ activityTimeout: 200, pongTimeout: 10000 }, quiet);
      await connected(pusher);
      const id = pusher.connection.socket_id;
      const seen = [];
      pusher.connection.bind('message', ({ event }) => seen.push(event));
      await until(() => seen.filter((event) => event === 'pusher:pong').length >= 3, 'pongs', 30000, () => seen);
      assert.deepEqual([pusher.connection.state, pusher.connection.socket_id], ['connected', id]);
    } finally {
      await quiet.end();
    }
  });

  test('the server says after how much silence pusher-js is to ask', async () => {
    const { next } = await socket();
    const { data } = await next((frame) => frame.event === 'pusher:connection_established', 'the greeting');
    assert.equal(data.activity_timeout, 6);
  });
});

describe('pusher-js, closed with a code', () => {
  /** Closes a connection; returns after how many milliseconds the client sets out to come back, or none if it stays away. */
  async function closed(code) {
    const pusher = join();
    await connected(pusher);
    const id = pusher.connection.socket_id;
    const changes = [];
    // It may set itself several times, of which the first counts.
    const waits = [];
    const { connection } = pusher;
    const { retryIn } = connection;
    connection.retryIn = (wait) => {
      waits.push(wait);
      retryIn.call(connection, wait);
    };
    pusher.connection.bind('state_change', ({ current }) => changes.push(current));
    const back = () => pusher.connection.state === 'connected' && pusher.connection.socket_id !== id;
    await program.php(`rt_close('${id}', ${code}, 'as asked');`);
    await until(() => changes.length && (back() || pusher.connection.state === 'disconnected'), 'what it does', 30000, () => changes);
    assert.ok(pusher.errors.some((error) => error.code === (code === 4000 ? 4003 : code)), JSON.stringify(pusher.errors));
    return back() ? Math.min(...waits) : undefined;
  }

  test('42xx comes back at once', async () => {
    for (const code of [4200, 4201]) assert.equal(await closed(code), 0, code);
  });

  test('41xx comes back after a second', async () => {
    assert.equal(await closed(4100), 1000);
  });

  test('40xx stays away, 4000 too, which in this protocol would mean TLS', async () => {
    for (const code of [4000, 4004, 4008, 4009]) assert.equal(await closed(code), undefined, code);
  });

  test('over realtime.max_connections it is told 4100, tries again each second, and gets in when there is room', async () => {
    const small = await server({ 'realtime.max_connections': 1 });
    try {
      const first = join({}, small);
      await connected(first);
      const second = client(small);
      open.push(second);
      const refused = [];
      second.connection.bind('error', (error) => {
        const code = error.data?.code ?? error.error?.data?.code;
        if (code === 4100 && !(refused.at(-1) > Date.now() - 600)) refused.push(Date.now());
      });
      await until(() => refused.length >= 3, 'three tries', 30000, () => [refused, second.errors]);
      for (const [n, at] of refused.slice(1).entries()) assert.ok(at - refused[n] >= 900, `${refused}`);
      assert.notEqual(second.connection.state, 'disconnected');
      first.disconnect();
      await connected(second);
    } finally {
      await small.end();
    }
  });

  test('an address that is no app\'s is 4005, and it stays away', async () => {
    for (const key of ['', 'a-key/more']) {
      const { next } = await socket(program, '?protocol=7', key);
      assert.equal((await next((frame) => frame.closed, 'the close')).closed, 4005, key);
    }
    const pusher = join({ key: 'a-key/more' });
    await until(() => pusher.connection.state === 'disconnected', 'the end', 30000, () => pusher.errors);
    assert.equal(pusher.errors[0].code, 4005);
    await sleep(1200);
    assert.equal(pusher.connection.state, 'disconnected');
  });
});
