// Handlers that go wrong: missing, printing, exiting, throwing, looping, out of memory, killed; PHP-FPM stopped while messages
// wait; a queue that is full. The message's sender hears of it, and everybody else goes on.

import assert from 'node:assert/strict';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, describe } from 'node:test';
import { sleep, until } from '../browser/support.mjs';
import { Client } from './client.mjs';
import { range, testsOf } from './lab.mjs';
import { signal } from './proc.mjs';
import { site } from './servers.mjs';

const test = testsOf(() => lab, 90000);
let lab;

async function begin(settings = {}, pool = {}) {
  lab = await site({
    lab: { handler: true, settings: { handshake_timeout: 3, handler_timeout: 3, ...settings } },
    fpm: { pool: { pm: 'static', 'pm.max_children': 5, ...pool } },
  });
  await lab.push('start', 1);
}
const open = (options) => Client.open(lab.hubUrl, options);

describe('a script that goes wrong', () => {
  let bystander;
  before(async () => {
    await begin();
    bystander = await open({ channels: ['other'] });
  });
  after(() => lab?.end());
  afterEach(async () => {
    assert.equal(await bystander.publish('x', 'fine'), 'fine', 'others are served as before');
    assert.equal(bystander.over, undefined);
  });

  /** What goes wrong with one message must not touch those before and after it. */
  async function amid(event, data) {
    const client = await open();
    client.send({ type: 'publish', channel: 'x', data: 'before', ref: 'before' });
    client.send({ type: 'publish', channel: 'x', event, data, ref: 'bad' });
    client.send({ type: 'publish', channel: 'x', data: 'after', ref: 'after' });
    assert.equal((await client.answer('before')).data, 'before');
    assert.equal((await client.answer('after', 20000)).data, 'after');
    const answers = client.frames.filter(({ ref }) => ref === 'bad');
    assert.equal(answers.length, 1, JSON.stringify(client.frames));
    client.close();
    return answers[0];
  }

  test('prints: that is no answer, and no harm', async () => {
    assert.deepEqual(await amid('print'), { type: 'reply', ref: 'bad', data: 'printed' });
    await until(() => /printed by the handler/.test(lab.log()), 'a word in the log');
    assert.ok(lab.log().length < 100_000, 'not all of it');
  });

  test('throws', async () => {
    assert.equal((await amid('throw')).code, 'handler_failed');
    assert.match(lab.log('php.log'), /thrown by the handler/);
  });

  test('exits', async () => assert.equal((await amid('exit')).code, 'handler_failed'));

  test('calls what does not exist', async () => {
    assert.equal((await amid('fatal')).code, 'handler_failed');
    assert.match(lab.log('php.log'), /no_such_function/);
  });

  test('exhausts its memory', async () => {
    assert.equal((await amid('memory')).code, 'handler_failed');
    assert.match(lab.log('php.log'), /Allowed memory size/);
  });

  test('kills its worker once: the message is tried again, and the sender never knows', async () => {
    assert.equal((await amid('kill', 1)).data, 'after 1');
  });

  test('kills its worker every time: three attempts, a line in the log, a counter, an error for the sender', async () => {
    writeFileSync(path.join(lab.site, 'kills.txt'), '0');
    lab.give(path.join(lab.site, 'kills.txt'));
    const before = await lab.stats();
    assert.equal((await amid('kill', 1000)).code, 'handler_failed');
    // Three count. Before them it may have died together with the message in front of it, whose outcome was not written yet,
    // and each time once more for a kept connection that PHP-FPM may have closed before it read the request.
    assert.match(readFileSync(path.join(lab.site, 'kills.txt'), 'utf8'), /^[3-6]$/, 'three attempts');
    const stats = await lab.stats();
    assert.equal(stats.handler_failed - before.handler_failed, 1, JSON.stringify(stats));
    assert.ok(stats.handler_retried - before.handler_retried >= 2, JSON.stringify(stats));
    const said = lab.log().split('\n').filter((line) => /given up|failed three times/.test(line));
    assert.equal(said.length, 1, lab.log());
  });

  test('loops for ever: handler_timeout ends the wait, and other connections never wait for it', async () => {
    const client = await open();
    client.send({ type: 'publish', channel: 'x', event: 'loop', ref: 'loop' });
    for (const n of range(5)) {
      assert.equal(await bystander.publish('x', n, undefined, 2500), n);
      await sleep(100);
    }
    await assert.rejects(client.answer('loop', 30000), (error) => ['handler_failed', 'timeout'].includes(error.code));
    assert.equal(await client.publish('x', 'after', undefined, 15000), 'after');
    // What loops in the pool is PHP's to end.
    for (const { pid } of lab.fpm.workers()) signal(pid, 'SIGKILL');
    await until(() => lab.fpm.workers().length === 5, 'new workers');
    client.close();
  });
});

describe('a script that is not there', () => {
  afterEach(() => lab?.end());

  test('missing: closed channels stay closed, messages fail, one line in the log; mended, it is found', async () => {
    await begin({ handshake_timeout: 2 });
    const script = path.join(lab.site, 'realtime.php');
    renameSync(script, `${script}.off`);
    await sleep(1500); // looked for once a second
    await assert.rejects(new Client(lab.hubUrl).opened, (error) => [403, 502, 503, 504].includes(error.status), 'nobody is let in unasked');
    await until(() => /realtime\.php/.test(lab.log()), 'a line in the log');
    assert.match(lab.log(), /realtime\.handler/);
    const lines = lab.log().split('\n').filter((line) => /realtime\.handler/.test(line)).length;
    await lab.push('start', 'pushing works without it');
    await Promise.all(range(20).map(() => assert.rejects(new Client(lab.hubUrl).opened)));
    assert.ok(lab.log().split('\n').filter((line) => /realtime\.handler/.test(line)).length <= lines + 6, lab.log());
    renameSync(`${script}.off`, script);
    const client = await until(() => open().catch(() => undefined), 'a client that is let in', 15000);
    assert.equal(await client.publish('x', 'found'), 'found');
    client.close();
  });

  test('without rt_run(): said in the log', async () => {
    await begin({ handshake_timeout: 2 });
    lab.put('realtime.php', '<?php echo "I am a page";');
    await sleep(1500);
    const client = new Client(lab.hubUrl);
    await client.opened.catch(() => {});
    await until(() => /rt_run\(\)/.test(lab.log()), 'a line in the log', 15000);
    client.close();
  });

  test('with a syntax error: the error is in PHP\'s log, and mending it is enough', async () => {
    await begin({ handshake_timeout: 2 });
    const script = path.join(lab.site, 'realtime.php');
    const good = readFileSync(script, 'utf8');
    lab.put('realtime.php', '<?php rt_on_message(function (');
    await sleep(2500);
    await new Client(lab.hubUrl).opened.catch(() => {});
    await until(() => /Parse error/.test(lab.log('php.log')), 'the error', 10000);
    lab.put('realtime.php', good);
    const client = await until(() => open().catch(() => undefined), 'a client that is let in', 15000);
    assert.equal(await client.publish('x', 'mended'), 'mended');
    client.close();
  });

  test('a changed script is run from the next event on', async () => {
    await begin();
    const client = await open();
    lab.put('realtime.php', '<?php rt_on_message(fn ($m) => "second version"); rt_run();');
    await until(async () => await client.publish('x', 'which?') === 'second version', 'the second version', 15000);
    client.close();
  });
});

describe('a pool that is not there', () => {
  afterEach(() => lab?.end());

  test('PHP-FPM stopped while messages wait: they are handled, in order, when it is back', async () => {
    await begin({ linger: 30, handshake_timeout: 30 });
    const hub = await lab.hub();
    const client = await Client.open(`http://127.0.0.1:${lab.port}`);
    assert.equal(await client.publish('x', 'warm'), 'warm');
    await lab.fpm.stop('SIGTERM');
    for (const n of range(20)) client.send({ type: 'publish', channel: 'x', data: n, ref: n });
    await sleep(1500);
    assert.deepEqual(client.frames.filter(({ type }) => type === 'error'), []);
    await lab.fpm.start();
    await lab.push('start', 'adopts it');
    for (const n of range(20)) assert.equal((await client.answer(n, 20000)).data, n);
    assert.deepEqual(client.frames.filter(({ ref }) => ref !== undefined).map(({ ref }) => ref).slice(-20), range(20));
    assert.equal((await lab.hub()).pid, hub.pid);
    client.close();
  });

  test('a pool that stops answering: its name and the cure in the log, once', async () => {
    await begin({ fastcgi: 'unix:/nowhere/php.sock', handshake_timeout: 1 });
    await assert.rejects(new Client(lab.hubUrl).opened);
    await assert.rejects(new Client(lab.hubUrl).opened);
    await until(() => /\/nowhere\/php\.sock/.test(lab.log()), 'a line in the log');
    assert.match(lab.log(), /realtime\.fastcgi/);
    await sleep(2000);
    assert.ok(lab.log().split('\n').filter((line) => /nowhere/.test(line)).length <= 3, lab.log());
  });
});

describe('too much', () => {
  afterEach(() => lab?.end());

  test('a connection whose queue is full hears "busy", by ref, and nothing is dropped silently', async () => {
    await begin({ handler_queue: 10, handler_timeout: 10, timeout: 0.5 });
    const [client, other] = [await open(), await open()];
    client.send({ type: 'publish', channel: 'x', event: 'slow', data: 3, ref: 'slow' });
    await sleep(200);
    for (const n of range(50)) client.send({ type: 'publish', channel: 'x', data: n, ref: n });
    assert.equal(await other.publish('x', 'not me'), 'not me');
    await until(() => range(50).every((n) => client.frames.some(({ ref }) => ref === n)), 'an answer to each', 10000, () => client.frames.length);
    const answers = range(50).map((n) => client.frames.filter(({ ref }) => ref === n));
    assert.ok(answers.every((each) => each.length === 1), 'one answer each');
    // It is read no faster than there is room: each that finds none after realtime.timeout is refused.
    const busy = answers.filter(([frame]) => frame.type === 'error');
    assert.ok(busy.length >= 3 && busy.length <= 8, `${busy.length} were refused`);
    for (const [frame] of busy) assert.equal(frame.code, 'busy');
    const handled = answers.filter(([frame]) => frame.type === 'reply').map(([frame]) => frame.data);
    assert.deepEqual(handled, handled.slice().sort((x, y) => x - y));
    assert.equal(await client.publish('x', 'and on'), 'and on');
    for (const each of [client, other]) each.close();
  });
});
