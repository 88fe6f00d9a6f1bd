// What all tests share: PHP programs on free ports, each with a control socket of its own; and a wire that can be cut.
//
// From the environment: REALTIME_SO (the extension), PHP (the binary, "php"), ARTIFACTS (where screenshots go).

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export { EventSource } from 'eventsource';
export { default as WebSocket } from 'ws';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const php = process.env.PHP || 'php';
const extension = process.env.REALTIME_SO || path.join(root, 'modules/realtime.so');

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/**
 * Waits until `check` returns something true, and returns that. Fails with `what` and what `state` says. `ms` is for when things have
 * gone wrong, and costs nothing when they go well: a machine that is busy takes many times what an idle one does.
 */
export async function until(check, what, ms = 30000, state = () => '') {
  for (const end = Date.now() + ms; ;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) throw new Error(`in ${ms} ms there was not: ${what} ${JSON.stringify(state())}`);
    await sleep(10);
  }
}

/** Below the ports that the system gives to clients: one of those could be taken again before the server has it. */
export async function freePort() {
  for (;;) {
    const port = 20000 + Math.floor(Math.random() * 10000);
    // Held at another address for as long as this process lives: nobody is given it twice, in whatever test that runs by then.
    if (!await listen(port, '127.77.77.77')) continue;
    const server = await listen(port, '127.0.0.1');
    if (!server) continue;
    await new Promise((done) => server.close(done));
    return port;
  }
}

/** Undefined when it is taken. */
function listen(port, host) {
  const server = net.createServer().unref();
  return new Promise((done) => {
    server.once('error', () => done(undefined)).listen({ port, host, exclusive: true }, () => done(server));
  });
}

/** Chromium without a window; `env` is more for its environment. */
export async function launch(env = {}) {
  const { chromium } = await import('playwright-core');
  return chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
    env: { ...process.env, ...env },
  });
}

/** Runs PHP to its end. */
export async function run(args, { socket, settings = {} } = {}) {
  const child = spawn(php, [...options({ socket, settings }), ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const out = collect(child);
  const code = await new Promise((done) => child.once('close', done));
  return { code, ...out() };
}

/** A PHP program that listens, started and stopped by its own process id. */
export class Program {
  /** `file` is below the project's top; `settings` are those of php.ini. */
  constructor(file, settings = {}, args = []) {
    this.file = path.join(root, file);
    this.settings = settings;
    this.args = args;
    this.home = mkdtempSync(path.join(os.tmpdir(), 'realtime-test-'));
    this.socket = path.join(this.home, 'hub.sock');
    this.port = 0;
  }

  /** For one that is to be started again: while it is away no client of another test can be given its port. */
  async startAgainLater() {
    this.port = await freePort();
    return this.start();
  }

  /** Starts it; the second time on the port that it had. */
  async start() {
    const args = [...options(this), this.file, `127.0.0.1:${this.port}`, ...this.args];
    this.child = spawn(php, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.output = collect(this.child);
    this.ended = new Promise((done) => this.child.once('close', (code, signal) => done(signal ?? code)));
    this.ended.then(() => { this.child.over = true; });
    const listening = () => /127\.0\.0\.1:(\d+)/.exec(this.output().stdout) ?? this.child.over;
    const found = await until(listening, 'an address in the output', 30000, this.output);
    if (found === true) throw new Error(`the program ended: ${JSON.stringify(this.output())}`);
    this.port = Number(found[1]);
    this.url = `http://127.0.0.1:${this.port}/`;
    return this;
  }

  async stop(signal = 'SIGTERM') {
    if (!this.child.over) this.child.kill(signal);
    const late = setTimeout(() => this.child.kill('SIGKILL'), 15000);
    const how = await this.ended;
    clearTimeout(late);
    return how;
  }

  /** Stops it and removes what it left. */
  async end() {
    if (this.child) await this.stop();
    rmSync(this.home, { recursive: true, force: true });
  }

  /** rt_broadcast() from a second PHP process. Returns the message's id. */
  async broadcast(channel, data, more = '') {
    const code = `echo rt_broadcast('${channel}', json_decode(base64_decode('${Buffer.from(JSON.stringify(data)).toString('base64')}'))${more});`;
    return this.php(code);
  }

  /** What `code` prints in a second PHP process. */
  async php(code) {
    const result = await run(['-r', code], this);
    if (result.code !== 0) throw new Error(`php -r ended with ${result.code}: ${result.stdout}${result.stderr}`);
    return result.stdout;
  }

  /** Broadcasts `count` numbered messages from `first` on, from one process. */
  numbers(channel, first, count, micros = 0) {
    return this.php(`for ($i = ${first}; $i < ${first + count}; $i++) { rt_broadcast('${channel}', $i); usleep(${micros}); }`);
  }
}

function options({ socket, settings = {} }) {
  // realtime.timeout is 1 by default, in which a machine that runs other tests too may not get to an answer.
  const all = { extension, ...(socket && { 'realtime.socket': socket }), 'realtime.log_level': 'error', 'realtime.timeout': 20, ...settings };
  return Object.entries(all).flatMap(([name, value]) => ['-d', `${name}=${value}`]);
}

function collect(child) {
  const out = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) child[name].setEncoding('utf8').on('data', (text) => { out[name] += text; });
  return () => ({ ...out });
}

/** A wire to a server: a TCP relay that can be cut, made deaf, or made to refuse some requests as a proxy would. */
export class Wire {
  #pairs = new Set();
  #held = [];
  #server;

  constructor(port) {
    this.target = port;
    this.down = false; // refuses new connections
    this.holding = false; // lets new connections wait for release()
    this.frozen = false; // swallows what is sent either way
    this.alter = (bytes) => bytes; // what the server sends
    this.block = () => false; // given a request's head: true closes it, "hang" never answers it
  }

  async open() {
    this.#server = net.createServer((client) => this.#relay(client));
    await new Promise((done) => this.#server.listen(0, '127.0.0.1', done));
    this.url = `http://127.0.0.1:${this.#server.address().port}/`;
    return this;
  }

  /** Cuts every connection, as a router that restarts. */
  cut() {
    for (const socket of this.#pairs) socket.destroy();
  }

  /** Serves the connections that were made while it was holding them. */
  release() {
    this.holding = false;
    for (const client of this.#held.splice(0)) this.#relay(client);
  }

  get connections() { return this.#pairs.size / 2; }

  async close() {
    this.cut();
    for (const client of this.#held) client.destroy();
    await new Promise((done) => this.#server.close(done));
  }

  #relay(client) {
    if (this.down) return client.destroy();
    if (this.holding) return this.#held.push(client.on('error', () => {}));
    const server = net.connect(this.target, '127.0.0.1');
    const both = [client, server];
    for (const [from, to] of [both, [server, client]]) {
      this.#pairs.add(from);
      from.on('error', () => {}).on('close', () => {
        this.#pairs.delete(from);
        to.destroy();
      });
      from.on('data', (bytes) => {
        if (this.frozen) return;
        const blocked = from === client && this.block(bytes.toString('latin1'));
        if (blocked === 'hang') return;
        if (blocked) return client.destroy();
        to.write(from === client ? bytes : this.alter(bytes));
      });
    }
  }
}
