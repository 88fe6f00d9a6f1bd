// Pusher's protocol under PHP-FPM: pusher-js clients across a takeover, and webhooks to an https:// address.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { chmodSync, readFileSync } from 'node:fs';
import https from 'node:https';
import { afterEach } from 'node:test';
import { resume } from '../../php/client/pusher-resume.js';
import { Authority } from '../browser/certificates.mjs';
import { sleep, until } from '../browser/support.mjs';
import { all, APP, client, collect, connected, Pusher, PusherServer } from '../protocols/support.mjs';
import { Lab, range, testsOf } from './lab.mjs';
import { ends } from './proc.mjs';
import { Fpm, Nginx, shared, site } from './servers.mjs';

const STATIC = { pm: 'static', 'pm.max_children': 3 };
const APPS = { pusher_app: `${APP.id}:${APP.key}:${APP.secret}` };
const gaps = [];
resume(Pusher, { onGap: (channel) => gaps.push(channel) });

let lab;
let authority;
const open = [];

const test = testsOf(() => lab);
afterEach(async () => {
  for (const pusher of open.splice(0)) pusher.disconnect();
  gaps.length = 0;
  await lab?.end();
  authority?.remove();
  lab = authority = undefined;
});

/** What the application's auth endpoint answers to this user. */
const authorization = (user) => ({
  customHandler({ socketId, channelName }, done) {
    const channel_data = JSON.stringify({ user_id: user, user_info: {} });
    const signature = createHmac('sha256', APP.secret).update(`${socketId}:${channelName}:${channel_data}`).digest('hex');
    done(null, { auth: `${APP.key}:${signature}`, channel_data });
  },
});

function join(options = {}) {
  const pusher = client({ url: `http://127.0.0.1:${lab.port}` }, options);
  open.push(pusher);
  return pusher;
}

test('a takeover: pusher-js clients come back by themselves, and with pusher-resume.js miss nothing', async () => {
  lab = await site({ lab: { settings: { ...APPS, drain: 1 } }, fpm: { pool: STATIC } });
  await lab.push('take', -1);
  let hub = await lab.hub();
  const clients = await Promise.all(range(10).map(async (number) => {
    const pusher = join({ channelAuthorization: authorization(`user-${number}`) });
    const states = [];
    pusher.connection.bind('state_change', ({ current }) => states.push(current));
    await connected(pusher);
    const got = await collect(pusher, 'take');
    const here = await collect(pusher, 'presence-take', ['pusher:member_added', 'pusher:member_removed']);
    return { pusher, states, got, here };
  }));
  await until(() => clients.every(({ here }) => here.channel.members.count === clients.length), 'all members');
  const told = clients.map(({ here }) => here.length);
  const first = clients.map(({ pusher }) => pusher.connection.socket_id);

  let n = 0;
  let stop = false;
  const pushing = (async () => { for (; !stop; n++) await lab.push('take', n); })();
  for (const round of [0, 1]) {
    await sleep(200);
    lab.writeIni({ ping_interval: 20 + round });
    await lab.fpm.reload();
    await lab.get('/do.php?what=pid');
    assert.ok(await ends(hub.pid, 30000), 'the old one ends when its clients have gone');
    hub = await lab.hub();
    await until(() => clients.every(({ pusher }) => pusher.connection.state === 'connected'), 'all back', 30000, () => clients.map(({ states }) => states));
  }
  stop = true;
  await pushing;
  for (const { pusher, got, states } of clients) {
    await until(() => got.length >= n, `${n} messages`, 30000, () => [got.length, states, pusher.errors]);
    await sleep(20);
    assert.deepEqual(got.map(({ data }) => data), range(n), 'nothing lost, nothing double, in order');
  }
  const now = () => clients.map(({ pusher }) => pusher.connection.socket_id);
  await until(() => now().every((id, index) => id && id !== first[index]), 'each has been away', 30000, () => [first, now()]);
  await until(() => clients.every(({ here }) => here.channel.members.count === clients.length), 'all members again');
  assert.deepEqual(gaps, []);
  assert.deepEqual(clients.map(({ here }) => here.length), told, 'nobody has left or joined');
});

/** An application that takes webhooks over TLS. */
async function application() {
  authority = new Authority();
  const { cert, key } = authority.issue();
  // The server reads the authority's certificate as the pool's user.
  chmodSync(authority.home, 0o755);
  const calls = [];
  const app = https.createServer({ cert: readFileSync(cert), key: readFileSync(key) }, (request, response) => {
    let body = '';
    request.on('data', (text) => { body += text; }).on('end', () => {
      calls.push({ headers: request.headers, rawBody: body });
      response.end('thanks');
    });
  });
  await new Promise((done) => app.listen(0, '127.0.0.1', done));
  return { calls, url: `https://localhost:${app.address().port}/hook`, close: () => { app.closeAllConnections(); app.close(); } };
}

async function told(app, pool) {
  lab = await Lab.make({ ini: shared, settings: { ...APPS, pusher_webhook: app.url } });
  lab.fpm = await new Fpm(lab, { pool: { ...STATIC, ...pool } }).start();
  lab.nginx = await new Nginx(lab).start();
  await lab.push('any', 0);
  await collect(join(), 'hooked');
}

test('a webhook goes to an https:// address whose certificate is of an authority of one\'s own', async () => {
  const app = await application();
  try {
    await told(app, { 'env[SSL_CERT_FILE]': authority.file });
    const call = await until(() => app.calls[0], 'a call', 30000, () => lab.allLogs());
    const sdk = new PusherServer({ appId: APP.id, key: APP.key, secret: APP.secret });
    const hook = sdk.webhook(call);
    assert.ok(hook.isValid());
    assert.deepEqual(hook.getEvents(), [{ name: 'channel_occupied', channel: 'hooked' }]);
    assert.doesNotMatch(lab.log(), /WARN|ERROR/);
  } finally {
    app.close();
  }
});

test('nothing is told to whoever cannot prove who they are, and the log says so once', async () => {
  const app = await application();
  try {
    await told(app, {});
    await until(() => /pusher_webhook/.test(lab.log()), 'a word in the log', 30000, () => lab.allLogs());
    await sleep(2500); // two tries more
    assert.deepEqual(app.calls, []);
    const lines = lab.log().split('\n').filter((line) => /WARN/.test(line));
    assert.equal(lines.length, 1, lab.log());
    assert.match(lines[0], /realtime\.pusher_webhook.*certificate/i);
  } finally {
    app.close();
  }
});

test('two apps share the channels, as is documented', async () => {
  const other = { id: 'other', key: 'other-key', secret: 'another-secret-of-the-tests' };
  lab = await site({ lab: { settings: { pusher_app: `${APPS.pusher_app},${other.id}:${other.key}:${other.secret}` } }, fpm: { pool: STATIC } });
  await lab.push('any', 0);
  const got = await collect(join({ key: other.key }), 'shared');
  const mine = await collect(join(), 'shared');
  const sdk = new PusherServer({ appId: APP.id, key: APP.key, secret: APP.secret, host: '127.0.0.1', port: lab.port, useTLS: false });
  await sdk.trigger('shared', 'message', 'of the first');
  await lab.push('shared', 'of PHP');
  for (const one of [got, mine]) {
    await all(one, 2);
    assert.deepEqual(one.map(({ data }) => data), ['of the first', 'of PHP']);
  }
});
