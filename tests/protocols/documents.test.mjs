// php/docs/pusher.md and php/docs/mercure.md as somebody follows them who comes from there: their blocks run as they stand, on other
// ports, in a browser, in `php -S` and in a shell.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test as run } from 'node:test';
import { promisify } from 'node:util';
import { freePort, launch, Program, root, sleep, until, Wire } from '../browser/support.mjs';
import { Echo, Pusher, PusherServer } from './support.mjs';

const test = (name, body) => run(name, { timeout: 120000 }, body);
const documents = Object.fromEntries(['pusher', 'mercure'].map(
  (name) => [name, readFileSync(path.join(root, `php/docs/${name}.md`), 'utf8')]));

/** The one block in this language that has this text in it. */
function block(name, language, text) {
  const blocks = [...documents[name].matchAll(/```(\w+)\n(.*?)```/gs)];
  const found = blocks.filter(([, its, code]) => its === language && code.includes(text));
  assert.equal(found.length, 1, `${found.length} blocks of ${language} with ${text} in ${name}.md`);
  return found[0][2];
}

/** What stands in the text as code. */
function inline(name, begin) {
  const found = [...documents[name].matchAll(/`([^`\n]+)`/g)].map(([, code]) => code).filter((code) => code.startsWith(begin));
  assert.equal(found.length, 1, `${begin} in ${name}.md: ${found}`);
  return found[0].replace(/;?$/, ';');
}

/** A block of php.ini as settings. */
const settings = (ini) => Object.fromEntries([...ini.matchAll(/^(realtime\.\w+) = ("[^"]*"|\S+)/gm)].map(([, name, value]) => [name, value]));

let browser;
let home;
const open = [];

before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one();
});

/** A directory of this test's own. */
function directory(files) {
  home = mkdtempSync(path.join(os.tmpdir(), 'realtime-documents-'));
  const its = home;
  open.push(() => rmSync(its, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(its, name), text);
  return its;
}

/** A page that keeps what it prints on its console. */
async function page(url, prepare = () => {}) {
  const context = await browser.newContext();
  open.push(() => context.close());
  const its = await context.newPage();
  its.printed = [];
  its.on('console', async (message) => {
    const values = await Promise.all(message.args().map((value) => value.jsonValue().catch(() => message.text())));
    its.printed.push(message.type() === 'log' ? values[0] : `${message.type()}: ${message.text()}`);
  });
  its.on('pageerror', (error) => its.printed.push(`error: ${error.message}`));
  await prepare(its);
  await its.goto(url);
  return its;
}

const printed = async (its, expected) => {
  await until(() => its.printed.length >= expected.length, `${expected.length} lines on the console`, 30000, () => its.printed);
  await sleep(100);
  assert.deepEqual(its.printed, expected);
};

describe('coming from Pusher', () => {
  test('without a framework: the page, auth.php, and rt_broadcast()', async () => {
    const port = await freePort();
    const pages = await freePort();
    const site = directory({
      'index.html': '<!doctype html><title>Pusher</title><link rel="icon" href="data:,"><script src="https://js.pusher.com/8.4.0/pusher.min.js"></script>'
        + `<script>${block('pusher', 'js', 'private-orders').replace('8080', port)}</script>`,
      'auth.php': `<?php\n${block('pusher', 'php', 'rt_pusher_auth')}`,
      'login.php': '<?php session_start(); $_SESSION = ["user" => 42, "name" => "Ada"]; header("Location: /");',
    });
    const program = new Program('php/examples/feed.php', {
      ...settings(block('pusher', 'ini', 'realtime.pusher_app')),
      'realtime.listen': `127.0.0.1:${port}`,
      'realtime.allowed_origins': `http://127.0.0.1:${pages}`,
      'session.save_path': site,
    });
    open.push(() => program.end());
    // As an application does on its developer's machine. The server starts with the first request.
    const options = Object.entries({ extension: process.env.REALTIME_SO || path.join(root, 'modules/realtime.so'), ...program.settings,
      'realtime.socket': program.socket }).flatMap(([name, value]) => ['-d', `${name}=${value}`]);
    const child = spawn(process.env.PHP || 'php', [...options, '-S', `127.0.0.1:${pages}`, '-t', site], { stdio: 'ignore' });
    const ended = new Promise((done) => child.once('close', done));
    open.push(() => { child.kill(); return ended; });
    await until(() => fetch(`http://127.0.0.1:${pages}/login.php`, { redirect: 'manual' }).catch(() => null), 'php -S');

    const library = createRequire(import.meta.url).resolve('pusher-js/dist/web/pusher.min.js');
    const local = (its) => its.route('https://js.pusher.com/**', (route) => route.fulfill({
      contentType: 'text/javascript', body: readFileSync(library, 'utf8'),
    }));
    const its = await page(`http://127.0.0.1:${pages}/login.php`, local);
    await its.waitForFunction(() => pusher.channel('private-orders')?.subscribed);
    await program.php(inline('pusher', "rt_broadcast('private-orders'"));
    await printed(its, [{ id: 42 }]);

    // Who is not logged in is not let in.
    const stranger = await page(`http://127.0.0.1:${pages}/`, local);
    await until(() => stranger.printed.some((line) => /403/.test(line)), 'a refusal', 30000, () => stranger.printed);
    assert.equal(await stranger.evaluate(() => pusher.channel('private-orders').subscribed), false);
  });
});

describe('coming from Reverb or Pusher, with what an application has', () => {
  const ini = settings(block('pusher', 'ini', 'realtime.pusher_app'));
  const [appId, key, secret] = JSON.parse(ini['realtime.pusher_app']).split(':');
  const started = async (more = {}) => {
    const program = await new Program('tests/protocols/server.php', { ...ini, ...more }).start();
    open.push(() => program.end());
    return program;
  };
  const ends = (pusher) => { open.push(() => pusher.disconnect()); return pusher; };

  test('Laravel: the names in .env that change, as Reverb\'s configuration and Echo read them', async () => {
    const env = Object.fromEntries([...block('pusher', 'ini', 'REVERB_HOST').matchAll(/^(\w+)=(\S+)$/gm)].map(([, name, value]) => [name, value]));
    assert.deepEqual([env.REVERB_HOST, env.REVERB_PORT, env.VITE_REVERB_PORT, env.VITE_REVERB_SCHEME], ['127.0.0.1', '8080', '443', 'https']);
    const program = await started();
    // Where this test has it: without a proxy that speaks TLS for the page.
    Object.assign(env, { REVERB_PORT: program.port, VITE_REVERB_HOST: '127.0.0.1', VITE_REVERB_PORT: program.port, VITE_REVERB_SCHEME: 'http' });
    // As resources/js/echo.js has it.
    const echo = ends(new Echo({
      broadcaster: 'reverb', Pusher, key, wsHost: env.VITE_REVERB_HOST, wsPort: env.VITE_REVERB_PORT ?? 80, wssPort: env.VITE_REVERB_PORT ?? 443,
      forceTLS: (env.VITE_REVERB_SCHEME ?? 'https') === 'https', enabledTransports: ['ws', 'wss'],
    }));
    const got = [];
    await new Promise((done) => echo.channel('orders').listen('.paid', (order) => got.push(order)).subscribed(done));
    // As config/broadcasting.php has it, for Pusher's SDK.
    const reverb = new PusherServer({
      appId, key, secret, host: env.REVERB_HOST, port: env.REVERB_PORT, scheme: env.REVERB_SCHEME, useTLS: env.REVERB_SCHEME === 'https',
    });
    await reverb.trigger('orders', 'paid', { id: 1 });
    await until(() => got.length === 1, 'the event');
    assert.deepEqual(got, [{ id: 1 }]);
  });

  test('Pusher: nothing but the options that are named', async () => {
    const [, text] = documents.pusher.split('## Pusher itself\n');
    const names = [...text.split('\n## ')[0].matchAll(/`(\w+)`/g)].map(([, name]) => name);
    assert.deepEqual(names, ['wsHost', 'wsPort', 'forceTLS', 'host', 'port', 'useTLS', 'scheme']);
    const program = await started();
    const values = { wsHost: '127.0.0.1', wsPort: program.port, forceTLS: false, host: '127.0.0.1', port: program.port, useTLS: false };
    const named = (some) => Object.fromEntries(some.map((name) => [name, values[name]]));
    const pusher = ends(new Pusher(key, { cluster: 'eu', ...named(names.slice(0, 3)) }));
    const got = [];
    const channel = pusher.subscribe('orders').bind('paid', (order) => got.push(order));
    await until(() => channel.subscribed, 'a subscription');
    await new PusherServer({ appId, key, secret, cluster: 'eu', ...named(names.slice(3, 6)) }).trigger('orders', 'paid', { id: 2 });
    await until(() => got.length === 1, 'the event');
    assert.deepEqual(got, [{ id: 2 }]);
  });

  test('the line that lets pusher-js get what it missed', async () => {
    const create = block('pusher', 'js', 'private-orders').replace("wsPort: 8080", 'wsPort: Number(location.port)').replace('private-orders', 'orders');
    assert.match(create, /location\.port/);
    const docroot = directory({
      'index.html': '<!doctype html><title>Resume</title><link rel="icon" href="data:,"><script src="/pusher.js"></script>'
        + `<script type="module">${block('pusher', 'js', 'resume(Pusher)')}${create}; window.pusher = pusher;</script>`,
      'pusher.js': readFileSync(createRequire(import.meta.url).resolve('pusher-js/dist/web/pusher.min.js')),
    });
    const program = await started({ 'realtime.docroot': docroot });
    const wire = await new Wire(program.port).open();
    open.push(() => wire.close());
    const its = await page(wire.url);
    await its.waitForFunction(() => window.pusher?.channel('orders').subscribed);
    const paid = (id) => program.php(`rt_broadcast('orders', ['id' => ${id}], event: 'paid');`);
    await paid(1);
    await printed(its, [{ id: 1 }]);
    wire.holding = true;
    wire.cut();
    await its.waitForFunction(() => pusher.connection.state !== 'connected');
    await paid(2);
    wire.release();
    await its.waitForFunction(() => pusher.connection.state === 'connected');
    await paid(3);
    await until(() => its.printed.at(-1)?.id === 3, 'the last', 30000, () => its.printed);
    assert.deepEqual(its.printed.filter((line) => line.id), [{ id: 1 }, { id: 2 }, { id: 3 }]);
  });
});

describe('coming from Mercure', () => {
  const ORDER = 'https://shop.example/orders/1';

  function jwt(key, header, claims) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${part({ alg: 'HS256', ...header })}.${part(claims)}`;
    return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`;
  }

  async function server(more = {}) {
    const ini = settings(block('mercure', 'ini', 'realtime.mercure_anonymous'));
    const script = block('mercure', 'js', 'new EventSource').replace('{id}', more['realtime.mercure_version'] ? ':id' : '{id}')
      .replace("'topic'", more['realtime.mercure_version'] ? "'match_urlpattern'" : "'topic'");
    const docroot = directory({ 'index.html': `<!doctype html><title>Mercure</title><link rel="icon" href="data:,"><script type="module">${script}</script>` });
    const program = await new Program('tests/protocols/mercure.php', { 'realtime.docroot': docroot, ...ini, ...more }).start();
    open.push(() => program.end());
    return [program, JSON.parse(ini['realtime.mercure_publisher_key'])];
  }

  const posted = (program, token) => promisify(execFile)('bash', ['-euc',
    block('mercure', 'sh', 'curl').replace('127.0.0.1:8080', `127.0.0.1:${program.port}`).replace('curl', 'curl -sS --fail-with-body')],
  { env: { ...process.env, JWT: token } }).then(({ stdout }) => stdout);

  async function listens(program) {
    // Of a subscription and not of a connection, which is there a little before it.
    await until(async () => await program.php('echo rt_stats()["subscriptions"];') === '1', 'an EventSource');
  }

  test('the page, rt_broadcast(), rt_update() and curl', async () => {
    const [program, key] = await server();
    const its = await page(program.url);
    await listens(program);
    await program.php(inline('mercure', `rt_broadcast('${ORDER}', [`));
    const id = await posted(program, jwt(key, {}, { mercure: { publish: ['*'] } }));
    assert.match(id, /^urn:uuid:/);
    await program.php(block('mercure', 'php', 'rt_update')); // private, and the page has no cookie
    await program.broadcast('https://shop.example/orders/2', 'the end');
    await printed(its, ['{"status":"paid"}', '{"status":"paid"}', 'the end']);
  });

  test('the same by version 1.0', async () => {
    const one = settings(block('mercure', 'ini', 'realtime.mercure_version = 1'));
    const [program, key] = await server(one);
    const its = await page(program.url);
    await listens(program);
    const claims = {
      iss: JSON.parse(one['realtime.mercure_issuer']), aud: JSON.parse(one['realtime.mercure_url']), exp: Date.now() / 1000 + 60,
      authorization_details: [{ type: 'https://mercure.rocks/authorization-detail', actions: ['publish'], topics: [{ match: '*' }] }],
    };
    await posted(program, jwt(key, { typ: 'at+jwt' }, claims));
    await assert.rejects(posted(program, jwt(key, {}, { mercure: { publish: ['*'] } })), /401/);
    await program.php(block('mercure', 'php', 'rt_update'));
    await program.broadcast('https://shop.example/orders/2', 'the end');
    await printed(its, ['{"status":"paid"}', 'the end']);
  });
});
