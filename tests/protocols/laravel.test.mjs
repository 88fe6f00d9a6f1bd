// pusher-js signs in at a Laravel application: Broadcast::resolveAuthenticatedUserUsing() says who it is, php/lib signs that, and the
// server lets the user hear what is for that user.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, test as run } from 'node:test';
import { root } from '../browser/support.mjs';
import { APP, client, connected, Program, PusherServer, sleep, until } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const open = [];
let home;
let program;

before(async () => {
  home = mkdtempSync(path.join(os.tmpdir(), 'realtime-laravel-'));
  // The application of tests/library, with what Laravel 9 added.
  const autoload = "require 'ROOT/tests/library/autoload.php';\n";
  const code = readFileSync(path.join(root, 'tests/library/apps/laravel.php'), 'utf8')
    .replace(autoload, `${autoload}require 'ROOT/tests/library/interfaces/laravel9.php';\n`)
    .replace("rt_listen('127.0.0.1:8080')", "echo 'Listening on ', rt_listen($argv[1]), \"\\n\"").replaceAll('ROOT', root);
  const file = path.join(home, 'laravel.php');
  writeFileSync(file, code);
  program = await new Program(path.relative(root, file), { 'realtime.pusher_app': `"${APP.id}:${APP.key}:${APP.secret}"` }).start();
});
after(async () => {
  await program?.end();
  rmSync(home, { recursive: true, force: true });
});
afterEach(() => { for (const pusher of open.splice(0)) pusher.disconnect(); });

/** A client of whom the application says that it is `user`. */
function join(user) {
  const pusher = client(program, { userAuthentication: { async customHandler({ socketId }, done) {
    const response = await fetch(`${program.url}publish`, {
      method: 'POST', headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ channel: 'sign-in', data: { socket_id: socketId, user } }),
    });
    const { data: { status, body } } = await response.json();
    if (status === 200) done(null, body);
    else done(new Error(`the route answered ${status}`), null);
  } } });
  open.push(pusher);
  return pusher;
}

test('signin() through Laravel, and an event for the user', async () => {
  const ann = join('ann');
  const got = [];
  ann.user.bind('note', (data) => got.push(data));
  ann.signin();
  await ann.user.signinDonePromise;
  await until(() => ann.user.user_data, 'the sign-in', 30000, () => ann.errors);
  assert.deepEqual(ann.user.user_data, { id: 'ann', user_info: { name: 'Ann' }, watchlist: ['bob'] });
  assert.equal(await program.php('echo json_encode(array_map(fn ($c) => $c->user, rt_connections()));'), '["ann"]');
  const sdk = new PusherServer({ appId: APP.id, key: APP.key, secret: APP.secret, host: '127.0.0.1', port: program.port, useTLS: false });
  await until(async () => {
    await sdk.sendToUser('ann', 'note', { n: 1 });
    return got.length > 0;
  }, 'the note');
  assert.deepEqual(got[0], { n: 1 });
});

test('whom the application does not know does not get in', async () => {
  const nobody = join(undefined);
  nobody.signin();
  await connected(nobody);
  await sleep(300);
  assert.equal(nobody.user.user_data, null);
  assert.equal(nobody.connection.state, 'connected');
});
