// Our client on cache channels: the newest message first, however old it is, once, over every transport.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test as run } from 'node:test';
import WebSocket from 'ws';
import { Realtime } from '../../php/client/realtime.js';
import { Program, Wire, until } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const open = [];
let server;

function client(kind, base = server.url) {
  const rt = new Realtime(base, { WebSocket, minDelay: 50, maxDelay: 400, transports: [kind] });
  rt.gaps = [];
  rt.on('gap', (gap) => rt.gaps.push(gap));
  open.push(rt);
  return rt;
}

async function collect(rt, channel) {
  const got = [];
  await rt.subscribe(channel, (data) => got.push(data)).ready;
  return got;
}

const all = (got, expected) => until(() => got.length >= expected.length, `${expected}`, 30000, () => got)
  .then(() => assert.deepEqual(got, expected));

before(async () => {
  server = await new Program('tests/browser/server.php', {
    'realtime.history_size': 0, 'realtime.ping_interval': 1, 'realtime.cache_channels': 'state.*',
  }).start();
});
after(() => server.end());
afterEach(() => {
  for (const rt of open.splice(0)) rt.close();
});

for (const kind of ['ws', 'sse', 'poll']) {
  describe(kind, () => {
    test('the newest comes first, and then what is live', async () => {
      const [one, two] = [`cache-${kind}`, `state.${kind}`];
      await server.numbers(one, 1, 2);
      await server.numbers(two, 11, 2);
      await server.broadcast('news', 'newer than both');
      const rt = client(kind);
      const got = await collect(rt, one);
      await all(got, [2]);
      await server.broadcast(one, 3);
      await all(got, [2, 3]);
      // The second channel's is older than what the client has of the first.
      const others = await collect(rt, two);
      await all(others, [12]);
      const none = await collect(rt, `cache-none-${kind}`);
      await server.broadcast(two, 13);
      await server.broadcast(one, 4);
      await server.broadcast(`cache-none-${kind}`, 'first');
      await all(others, [12, 13]);
      await all(got, [2, 3, 4]);
      await all(none, ['first']);
    });

    test('it does not come twice after a lost connection, and one that was missed does', async () => {
      const channel = `cache-lost-${kind}`;
      await server.broadcast(channel, 1);
      const wire = await new Wire(server.port).open();
      try {
        const rt = client(kind, wire.url);
        const got = await collect(rt, channel);
        await all(got, [1]);
        for (const last of [2, 3]) {
          wire.down = true;
          wire.cut();
          await until(() => rt.state === 'connecting', 'a lost connection');
          await server.broadcast(channel, last);
          wire.down = false;
          await until(() => rt.state === 'open', 'a connection');
          await until(() => got.at(-1) === last, 'the missed one', 30000, () => got);
        }
        wire.cut();
        await server.broadcast(`${channel}-other`, 0);
        assert.deepEqual(await collect(rt, `${channel}-other`).then((other) => all(other, [0]).then(() => got)), [1, 2, 3]);
      } finally {
        await wire.close();
      }
    });
  });
}
