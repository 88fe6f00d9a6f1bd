// README.md's "With nginx and PHP-FPM", word for word: only the port, the socket and the paths are this test's.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test as run } from 'node:test';
import { launch, root, until } from '../browser/support.mjs';
import { Lab } from './lab.mjs';
import { Fpm, Nginx } from './servers.mjs';

const readme = readFileSync(path.join(root, 'README.md'), 'utf8');
const section = readme.split('\n## ').find((part) => part.startsWith('With nginx and PHP-FPM'));
const block = (language, text = section) => new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``).exec(text)[1];
const quoted = (pattern) => pattern.exec(section)[0].slice(1, -1);
const test = (name, body) => run(name, { timeout: 120000 }, body);

let lab;
let browser;

before(async () => {
  lab = await Lab.make();
  const site = path.join(lab.home, 'nginx/site.conf');
  const handler = quoted(/`realtime\.handler=[^`]*`/).replaceAll('/srv/app', lab.site);
  writeFileSync(lab.file('php.ini'), [
    block('ini').replace('realtime.so', lab.extension), handler,
    // And a realtime.timeout for a machine that runs other tests, too.
    `realtime.listen=127.0.0.1:${lab.port}`, `realtime.socket=${lab.socket}`, 'realtime.timeout=20', `error_log=${lab.logs}/php.log`, '',
  ].join('\n'));
  lab.put('public/orders.php', `<?php\n${quoted(/`rt_broadcast\([^`]*`/)}\n`);
  const chat = readme.split('\n## ').find((part) => part.startsWith('What clients send'));
  lab.put('realtime.php', block('php', chat));
  lab.fpm = await new Fpm(lab).start();
  const nginx = new Nginx(lab);
  const conf = readFileSync(site, 'utf8');
  assert.match(conf, /^ +include snippets\/realtime\.conf;$/m);
  writeFileSync(site, conf.replace(/^ +include snippets\/realtime\.conf;$/m, block('nginx')));
  lab.nginx = await nginx.start();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await lab?.end();
});

test('at most fifteen lines', () => assert.ok(section.trim().split('\n').length <= 15, section));

test('a page pushes, and a browser listens', async () => {
  assert.equal((await lab.get('/orders.php')).status, 200, lab.allLogs());
  const page = await browser.newPage();
  await page.goto(`${lab.url}/`);
  const source = quoted(/`new EventSource\([^`]*`/);
  await page.evaluate(`new Promise((open) => {
    window.got = [];
    window.source = ${source};
    window.source.onmessage = ({ data }) => window.got.push(data);
    window.source.onopen = open;
  })`);
  // A little after the head, of which the page knows.
  await until(async () => (await lab.stats()).subscriptions === 1, 'the subscription', 30000, () => lab.allLogs());
  assert.equal((await lab.get('/orders.php')).status, 200);
  await page.waitForFunction(() => window.got.length > 0);
  assert.deepEqual(await page.evaluate(() => window.got), ['"paid"']);
});

test('what browsers send runs the script, which is the chat above', async () => {
  const [author, reader] = [await browser.newPage(), await browser.newPage()];
  for (const page of [author, reader]) {
    await page.goto(`${lab.url}/`);
    await page.evaluate(() => new Promise((open) => {
      window.got = [];
      window.ws = new WebSocket(`ws://${location.host}/realtime/raw/chat`);
      window.ws.onmessage = ({ data }) => window.got.push(data);
      window.ws.onopen = open;
    }));
  }
  // A little after the handshake.
  await until(async () => await lab.php("echo rt_channels('chat')['chat'] ?? 0;") === '2', 'two subscriptions', 30000, () => lab.allLogs());
  await author.evaluate(() => window.ws.send('hello'));
  await reader.waitForFunction(() => window.got.length > 0);
  assert.deepEqual(await reader.evaluate(() => window.got), ['hello']);
  assert.deepEqual(await author.evaluate(() => window.got), []);
});
