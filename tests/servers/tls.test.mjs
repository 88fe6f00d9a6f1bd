// TLS of the server's own under PHP-FPM: certificates that are renewed, files that are wrong, reloads that bring it, and
// OpenSSL's client.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, chownSync, copyFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import tls from 'node:tls';
import { afterEach } from 'node:test';
import { Authority } from '../browser/certificates.mjs';
import { sleep, until, WebSocket } from '../browser/support.mjs';
import { isRoot, Lab, testsOf, user } from './lab.mjs';
import { alive } from './proc.mjs';
import { Fpm, Nginx, shared, site } from './servers.mjs';

const STATIC = { pm: 'static', 'pm.max_children': 2 };
let lab;
let authority;

const test = testsOf(() => lab);
afterEach(async () => {
  await lab?.end();
  lab = undefined;
  authority?.remove();
});

const count = (text, what) => text.split('\n').filter((line) => what.test(line)).length;

/** A lab whose server has a certificate, or will have one after `secure()`. */
async function make(on = true) {
  authority = new Authority();
  lab = await Lab.make({ ini: shared, settings: { drain: 1 } });
  renew();
  if (on) secure();
  lab.fpm = await new Fpm(lab, { pool: STATIC }).start();
  lab.nginx = await new Nginx(lab).start();
}

function secure() {
  lab.writeIni({ tls_cert: lab.file('cert.pem'), tls_key: lab.file('key.pem') });
}

/** Puts a new certificate and its key in place, as certbot's hook in the documentation does. */
function renew() {
  const { cert, key } = authority.issue();
  const files = [['cert.pem', cert], ['key.pem', key]];
  for (const [name, from] of files) {
    copyFileSync(from, lab.file(`${name}.new`));
    chmodSync(lab.file(`${name}.new`), 0o640);
    if (isRoot) chownSync(lab.file(`${name}.new`), 0, user.gid);
  }
  // One right after the other: a certificate that lies there for a second with the key of another is a bad one.
  for (const [name] of files) renameSync(lab.file(`${name}.new`), lab.file(name));
}

/** The serial number of the certificate that a new client is shown. */
const shown = () => new Promise((done, fail) => {
  const socket = tls.connect({ port: lab.port, host: '127.0.0.1', servername: 'localhost', ca: authority.ca }, () => {
    done(socket.getPeerCertificate().serialNumber);
    socket.destroy();
  });
  socket.once('error', fail);
});

/** A client on `/raw/tls` that notes what it gets. */
async function client() {
  const socket = new WebSocket(`wss://localhost:${lab.port}/raw/tls`, { ca: authority.ca, family: 4 });
  const got = [];
  socket.on('message', (text) => got.push(JSON.parse(text)));
  socket.on('close', (code) => { socket.code = code; });
  await new Promise((done, fail) => socket.once('open', done).once('error', fail));
  await until(async () => (await lab.stats()).subscriptions > 0, 'the subscription');
  return { socket, got };
}

test('a renewed certificate is taken, a bad one is not, and nobody is disconnected', async () => {
  await make();
  await lab.push('tls', 0);
  const { pid } = await lab.hub();
  const { socket, got } = await client();
  const first = await shown();
  assert.equal(await shown(), first);
  renew();
  await until(async () => await shown() !== first, 'the new certificate', 30000, () => lab.log());
  const second = await shown();
  await until(() => count(lab.log(), /was read again/) === 1, 'a line about it', 30000, () => lab.log());

  writeFileSync(lab.file('cert.pem'), 'nonsense');
  await until(() => /realtime\.tls_cert\).*stays/.test(lab.log()), 'a line about it', 30000, () => lab.log());
  await sleep(2500);
  assert.equal(await shown(), second);
  assert.equal(count(lab.log(), /stays/), 1, 'one line, however often it is looked at');
  renew();
  await until(async () => await shown() !== second, 'the next certificate');

  await lab.push('tls', 1);
  await until(() => got.includes(1), 'a message');
  assert.equal(socket.code, undefined, 'connected all along');
  assert.equal((await lab.hub()).pid, pid);
  socket.close();
});

test('files that cannot be used are told to the page that starts the server, once in the log', async () => {
  await make();
  rmSync(lab.file('key.pem'));
  for (let i = 0; i < 5; i++) {
    const { status, json } = await lab.get('/push.php?channel=tls&data=1');
    assert.equal(status, 500);
    assert.match(json.error, /key\.pem \(realtime\.tls_key\): No such file/);
  }
  assert.equal(count(lab.log() + lab.log('php.log'), /realtime\.tls_key/), 1, 'one line in the log');
  assert.deepEqual(lab.hubs(), []);
});

test('a key that the pool\'s user may not read is named, with the user', async (t) => {
  if (!isRoot) return t.skip('only root can make one');
  await make();
  chmodSync(lab.file('key.pem'), 0o600);
  const { json } = await lab.get('/push.php?channel=tls&data=1');
  assert.match(json.error, new RegExp(`realtime\\.tls_key\\): user ${user.uid}, as whom the server runs, may not read it`));
});

test('a reload brings TLS; with files that are wrong the server of before serves on', async () => {
  await make(false);
  await lab.push('tls', 0);
  const plain = await lab.hub();
  const before = new WebSocket(`ws://127.0.0.1:${lab.port}/raw/tls`);
  const closed = new Promise((done) => before.once('close', done));
  await new Promise((done) => before.once('open', done));

  lab.writeIni({ tls_cert: lab.file('cert.pem'), tls_key: lab.file('nowhere.pem') });
  await lab.fpm.reload();
  await lab.push('tls', 1);
  await until(() => /nowhere\.pem \(realtime\.tls_key\): No such file.*serves on/.test(lab.log()), 'a line about it', 30000, () => lab.allLogs());
  assert.equal((await lab.hub()).pid, plain.pid);
  assert.equal(before.readyState, WebSocket.OPEN);

  secure();
  await lab.fpm.reload();
  await lab.push('tls', 2);
  await until(() => lab.hubs().some(({ pid }) => pid !== plain.pid && alive(pid)), 'a new server', 30000, () => lab.allLogs());
  assert.equal(await closed, 1012);
  const { socket, got } = await client();
  await lab.push('tls', 3);
  await until(() => got.includes(3), 'a message over TLS');
  assert.match(lab.log(), /with TLS/);
  socket.close();
});

test('OpenSSL\'s client: both versions, no older one, no renegotiation, and sessions that are resumed', async () => {
  await make();
  await lab.push('tls', 0);
  for (const version of ['-tls1_2', '-tls1_3']) {
    const { out, answer } = await openssl([version], ask);
    assert.match(answer, /^HTTP\/1\.1 200 /m, out);
    assert.match(out, /Verify return code: 0 \(ok\)/);
    assert.match(out, /ALPN protocol: http\/1\.1/);
    // -reconnect: five more connections with the session of the first; TLS 1.3's tickets come too late for it.
    if (version === '-tls1_2') assert.equal((await openssl([version, '-reconnect'])).out.match(/^Reused,/gm)?.length, 5);
  }
  const old = await openssl(['-tls1_1', '-cipher', 'ALL:@SECLEVEL=0']);
  assert.match(old.out, /alert|no protocols available/);
  // "R" asks for new keys.
  const { out } = await openssl(['-tls1_2'], 'R\n', /no renegotiation/);
  assert.match(out, /no renegotiation/);
  // "K" changes keys in TLS 1.3, and wants the server to. What comes together with it would be no command.
  const updated = await openssl(['-tls1_3'], 'K\n', /^KEYUPDATE/m, ask);
  assert.match(updated.answer, /^HTTP\/1\.1 200 /m, updated.out);
});

const ask = 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n';

/** Runs `openssl s_client`, which gets what is to be typed, with pauses until it says something. */
async function openssl(options, ...typed) {
  const args = ['s_client', '-connect', `127.0.0.1:${lab.port}`, '-servername', 'localhost', '-CAfile', authority.file,
    '-alpn', 'h2,http/1.1', ...options];
  const child = spawn('openssl', args, { stdio: ['pipe', 'pipe', 'pipe'] });
  let out = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { out += text; });
  child.stdin.on('error', () => {});
  const ended = new Promise((done) => child.once('close', done));
  const late = setTimeout(() => child.kill('SIGKILL'), 60000);
  if (!options.includes('-reconnect')) {
    await until(() => /Verify return code|alert|no protocols/.test(out) || child.exitCode !== null, 'a handshake', 30000, () => out);
  }
  for (const what of typed) {
    if (what instanceof RegExp) await until(() => what.test(out) || child.exitCode !== null, 'a word of it', 30000, () => out);
    else child.stdin.write(what);
  }
  if (typed.includes(ask)) await until(() => /^HTTP\/1\.1 /m.test(out) || child.exitCode !== null, 'an answer', 30000, () => out);
  child.stdin.end();
  await ended;
  clearTimeout(late);
  return { out, answer: out.slice(Math.max(0, out.indexOf('HTTP/1.1 '))) };
}
