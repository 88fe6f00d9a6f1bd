// Handlers that go wrong: missing, printing, exiting, throwing, looping, out of memory, killed; PHP-FPM stopped while messages
// wait; a queue that is full. The message's sender hears of it, and everybody else goes on.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, describe } from 'node:test';
import { sleep, until } from '../browser/support.mjs';
import { Client } from './client.mjs';
import { range, testsOf } from './lab.mjs';
import { kill } from './proc.mjs';
import { site } from './servers.mjs';

const test = testsOf(() => lab);
let lab;

async function begin(settings = {}, pool = {}) {
  lab = await site({
    lab: { handler: true, settings: { handshake_timeout: 20, handler_timeout: 6, ...settings } },
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
    assert.equal((await client.answer('after', 30000)).data, 'after');
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
      assert.equal(await bystander.publish('x', n), n);
      await sleep(100);
    }
    assert.ok(!client.frames.some(({ ref }) => ref === 'loop'), 'they did not wait for it');
    await assert.rejects(client.answer('loop', 60000), (error) => ['handler_failed', 'timeout'].includes(error.code));
    assert.equal(await client.publish('x', 'after', undefined, 30000), 'after');
    // What loops in the pool is PHP's to end.
    await kill(...lab.fpm.workers().map(({ pid }) => pid));
    await until(() => lab.fpm.workers().length === 5, 'new workers');
    client.close();
  });
});

test('a script that goes on after fastcgi_finish_request(): nobody waits for it while other workers are free', async () => {
  lab = await site({
    lab: { handler: true, ini: 'opcache.enable=0' }, fpm: { pool: { pm: 'static', 'pm.max_children': 5 } },
  });
  try {
    lab.put('realtime.php', `<?php
      rt_on_message(fn ($m) => $m->data);
      rt_run();
      fastcgi_finish_request();
      while (!file_exists(__DIR__ . '/go')) { usleep(5000); clearstatcache(); }`);
    await lab.push('start', 1);
    const clients = await Promise.all(range(2).map(() => open()));
    for (const client of clients) assert.equal(await client.publish('x', 'quick'), 'quick');
    lab.put('go', '');
  } finally {
    await lab.end();
  }
});

test('filter.default, which changes what PHP takes from a request, leaves events alone', async () => {
  lab = await site({ lab: { handler: true, ini: 'filter.default=special_chars' }, fpm: { pool: { pm: 'static', 'pm.max_children': 5 } } });
  try {
    await lab.push('start', 1);
    const client = await open();
    const data = { text: '"<a href=\'#\'>&amp;</a>"' };
    assert.deepEqual(await client.publish('x', data), data);
  } finally {
    await lab.end();
  }
});

test('fastcgi_finish_request() before rt_run(): said in PHP\'s log, and no handler runs whose answer would be lost', async () => {
  lab = await site({ lab: { handler: true }, fpm: { pool: { pm: 'static', 'pm.max_children': 5 } } });
  try {
    lab.put('realtime.php', `<?php
      rt_on_message(fn ($m) => file_put_contents(__DIR__ . '/order.txt', "ran\n", FILE_APPEND));
      fastcgi_finish_request();
      rt_run();`);
    await lab.push('start', 1);
    await assert.rejects(open(), { status: 502 });
    // The server has its answer before the script goes on.
    const said = () => /fastcgi_finish_request\(\) was called before rt_run\(\)/.test(lab.log('php.log'));
    await until(said, 'a word in the log', 30000, () => lab.allLogs());
    assert.equal(existsSync(path.join(lab.site, 'order.txt')), false);
  } finally {
    await lab.end();
  }
});

test('quick messages pass by a handler that is slow and by one that goes on after its request; each is handled once', async () => {
  lab = await site({
    lab: { handler: true, settings: { rate_messages: 1_000_000, handler_timeout: 100 } }, fpm: { pool: { pm: 'static', 'pm.max_children': 5 } },
  });
  try {
    lab.put('realtime.php', `<?php
      function linger($file) { while (!file_exists($file)) { usleep(5000); clearstatcache(); } }
      $lag = null;
      rt_on_message(function ($m) use (&$lag) {
        file_put_contents(__DIR__ . '/order.txt', json_encode([$m->from->id, $m->data]) . "\n", FILE_APPEND | LOCK_EX);
        if ($m->event === 'slow') linger($m->data);
        if ($m->event === 'lag' || $m->event === 'blink') $lag = $m->data;
        return $m->data;
      });
      rt_run();
      if ($lag) {
        fastcgi_finish_request();
        is_string($lag) ? linger($lag) : usleep(500);
      }`);
    await lab.push('start', 1);
    const clients = await Promise.all(range(40).map(() => open()));
    const [slow, lag, ...blinks] = await Promise.all(range(10).map(() => open()));
    /** Says `from` and the numbers behind it, each when the one before it is answered. */
    const numbers = (client, from, count, event) => new Promise((done) => {
      let next = from;
      const say = () => client.send({ type: 'publish', channel: 'x', event, data: next, ref: next });
      client.socket.on('message', function heard(text) {
        const { type, ref, data } = JSON.parse(text);
        assert.deepEqual({ type, ref, data }, { type: 'reply', ref: next, data: next });
        next += 1;
        if (next < from + count) return say();
        client.socket.off('message', heard);
        done();
      });
      say();
    });
    const files = [];
    for (const round of range(4)) {
      const storm = clients.map((client) => numbers(client, 100 * round, 100));
      await sleep(30);
      const file = path.join(lab.site, `go${round}`);
      files.push(file);
      const answer = slow.publish('x', file, 'slow', 100000);
      let answered = false;
      answer.then(() => { answered = true; });
      if (round === 3) {
        // Only now, since then no request is sent to a busy worker any more for a while.
        await Promise.all(blinks.map((client) => numbers(client, 1, 5, 'blink')));
        assert.equal(await lag.publish('x', `${file}l`, 'lag', 30000), `${file}l`);
      }
      await Promise.all(storm);
      await sleep(20);
      assert.equal(answered, false, 'it is still slow');
      lab.put(`go${round}l`, '');
      lab.put(`go${round}`, '');
      assert.equal(await answer, file);
    }
    const handled = readFileSync(path.join(lab.site, 'order.txt'), 'utf8').trim().split('\n').map((line) => JSON.parse(line));
    for (const client of clients) client.id = client.frames[0].connection;
    for (const client of clients) {
      assert.deepEqual(handled.filter(([id]) => id === client.id).map(([, data]) => data), range(400), 'each once, in order');
    }
    const rest = handled.filter(([id]) => !clients.some((client) => client.id === id)).map(([, data]) => data);
    assert.deepEqual(rest.sort(), [...blinks.flatMap(() => [1, 2, 3, 4, 5]), ...files, `${files[3]}l`].sort());
  } finally {
    await lab.end();
  }
});

describe('a script that is not there', () => {
  afterEach(() => lab?.end());

  test('missing: closed channels stay closed, messages fail, one line in the log; mended, it is found', async () => {
    await begin({ handshake_timeout: 2 });
    const script = path.join(lab.site, 'realtime.php');
    renameSync(script, `${script}.off`);
    await sleep(3000); // looked for once a second
    await assert.rejects(new Client(lab.hubUrl).opened, (error) => [403, 502, 503, 504].includes(error.status), 'nobody is let in unasked');
    await until(() => /realtime\.handler.*realtime\.php/.test(lab.log()), 'a line in the log', 30000, () => lab.log());
    const lines = lab.log().split('\n').filter((line) => /realtime\.handler/.test(line)).length;
    await lab.push('start', 'pushing works without it');
    await Promise.all(range(20).map(() => assert.rejects(new Client(lab.hubUrl).opened)));
    assert.ok(lab.log().split('\n').filter((line) => /realtime\.handler/.test(line)).length <= lines + 6, lab.log());
    renameSync(`${script}.off`, script);
    const client = await until(() => open().catch(() => undefined), 'a client that is let in', 30000);
    assert.equal(await client.publish('x', 'found'), 'found');
    client.close();
  });

  test('without rt_run(): said in the log', async () => {
    await begin({ handshake_timeout: 2 });
    lab.put('realtime.php', '<?php echo "I am a page";');
    await sleep(1500);
    // Again and again: PHP may go on for a while with what it has compiled.
    await until(async () => {
      const client = new Client(lab.hubUrl);
      await client.opened.catch(() => {});
      client.close();
      return /rt_run\(\)/.test(lab.log());
    }, 'a line in the log', 30000, () => lab.allLogs());
  });

  test('with a syntax error: the error is in PHP\'s log, and mending it is enough', async () => {
    await begin({ handshake_timeout: 2 });
    const script = path.join(lab.site, 'realtime.php');
    const good = readFileSync(script, 'utf8');
    lab.put('realtime.php', '<?php rt_on_message(function (');
    await sleep(2500);
    await until(async () => {
      const client = new Client(lab.hubUrl);
      await client.opened.catch(() => {});
      client.close();
      return /Parse error/.test(lab.log('php.log'));
    }, 'the error', 30000, () => lab.allLogs());
    lab.put('realtime.php', good);
    const client = await until(() => open().catch(() => undefined), 'a client that is let in', 30000);
    assert.equal(await client.publish('x', 'mended'), 'mended');
    client.close();
  });

  test('a changed script is run from the next event on', async () => {
    await begin();
    const client = await open();
    lab.put('realtime.php', '<?php rt_on_message(fn ($m) => "second version"); rt_run();');
    await until(async () => await client.publish('x', 'which?') === 'second version', 'the second version', 30000);
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
    for (const n of range(20)) assert.equal((await client.answer(n, 30000)).data, n);
    assert.deepEqual(client.frames.filter(({ ref }) => ref !== undefined).map(({ ref }) => ref).slice(-20), range(20));
    assert.equal((await lab.hub()).pid, hub.pid);
    client.close();
  });

  test('a pool that is busy for so long that a message is given up: it is not handled afterwards', async () => {
    await begin({ handler_timeout: 2 }, { 'pm.max_children': 1 });
    const client = await open();
    assert.equal(await client.publish('x', 'before', 'append'), 'before');
    const file = path.join(lab.site, 'go');
    const page = lab.get(`/do.php?what=wait&file=${file}`);
    await until(() => existsSync(`${file}.begun`), 'the page that has the only worker');
    await assert.rejects(client.publish('x', 'late', 'append', 30000), { code: 'handler_failed' });
    await sleep(500);
    lab.put('go', '');
    await page;
    assert.equal(await client.publish('x', 'after', 'append'), 'after');
    const handled = readFileSync(path.join(lab.site, 'order.txt'), 'utf8').trim().split('\n').map((line) => JSON.parse(line)[1]);
    // What took too long may have been tried again.
    assert.deepEqual([...new Set(handled)], ['before', 'after']);
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
    const file = path.join(lab.site, 'go');
    client.send({ type: 'publish', channel: 'x', event: 'wait', data: file, ref: 'slow' });
    await until(() => existsSync(`${file}.begun`), 'the handler');
    const started = Date.now();
    for (const n of range(50)) client.send({ type: 'publish', channel: 'x', data: n, ref: n });
    assert.equal(await other.publish('x', 'not me'), 'not me');
    await until(() => client.frames.filter(({ type }) => type === 'error').length >= 3, 'three refusals', 30000, () => client.frames);
    lab.put('go', '');
    await until(() => range(50).every((n) => client.frames.some(({ ref }) => ref === n)), 'an answer to each', 30000, () => client.frames.length);
    const answers = range(50).map((n) => client.frames.filter(({ ref }) => ref === n));
    assert.ok(answers.every((each) => each.length === 1), 'one answer each');
    // It is read no faster than there is room: each that finds none after realtime.timeout is refused.
    const busy = answers.filter(([frame]) => frame.type === 'error');
    assert.ok(busy.length >= 3 && busy.length <= (Date.now() - started) / 500, `${busy.length} were refused in ${Date.now() - started} ms`);
    for (const [frame] of busy) assert.equal(frame.code, 'busy');
    const handled = answers.filter(([frame]) => frame.type === 'reply').map(([frame]) => frame.data);
    assert.deepEqual(handled, handled.slice().sort((x, y) => x - y));
    assert.equal(await client.publish('x', 'and on'), 'and on');
    for (const each of [client, other]) each.close();
  });
});
