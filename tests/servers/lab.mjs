// Where one test's servers live: a directory with a site, php.ini, sockets and logs, and free ports.
//
// The configurations are those of php/, with only paths, ports and users changed: what is tested is what is documented.
// From the environment: REALTIME_SO (the extension), PHP (the binary, "php").

import { spawn } from 'node:child_process';
import {
  chmodSync, chownSync, copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test as run } from 'node:test';
import { freePort, root, until } from '../browser/support.mjs';
import { closeAll } from './client.mjs';
import { ends, processes, signal, zombies } from './proc.mjs';

const php = process.env.PHP || 'php';
const extension = process.env.REALTIME_SO || path.join(root, 'modules/realtime.so');

export const isRoot = process.getuid() === 0;

/** Who the pools' workers, and so the hubs, run as: www-data when root runs the tests, else who runs them. */
export const user = account(isRoot ? 'www-data' : os.userInfo().username);

/** 0 to n - 1. */
export const range = (n) => Array.from({ length: n }, (_, i) => i);

/** `test()` for a file: with a time limit, and the logs of the lab that `current()` returns beside what failed. */
export const testsOf = (current, timeout = 180000) => (name, body) => run(name, { timeout }, async (t) => {
  try {
    await body(t);
  } catch (error) {
    error.message += `\n${current()?.allLogs()}`;
    throw error;
  }
});

const labs = new Set();
// A test that was cut short leaves nothing either.
process.once('SIGTERM', () => process.exit(1));
process.on('exit', () => labs.forEach((lab) => {
  lab.killAll();
  lab.remove();
}));

export class Lab {
  /** `settings`: more lines for php.ini, without the `realtime.` in front; `handler`: whether there is realtime.handler. */
  constructor({ settings = {}, handler = false, unix = false, ini = '' } = {}) {
    this.home = mkdtempSync(path.join(os.tmpdir(), 'rt-'));
    chmodSync(this.home, 0o755);
    this.site = path.join(this.home, 'app');
    this.runDir = path.join(this.home, 'run');
    this.logs = path.join(this.home, 'log');
    this.pids = new Set();
    cpSync(path.join(root, 'tests/servers/site'), this.site, { recursive: true });
    for (const directory of [this.site, this.runDir, this.logs, path.join(this.home, 'sessions')]) {
      mkdirSync(directory, { recursive: true, mode: 0o755 });
      this.give(directory);
    }
    // Where every user can read it: the project itself may be in somebody's home.
    this.extension = path.join(this.home, 'realtime.so');
    copyFileSync(extension, this.extension);
    chmodSync(this.extension, 0o644);
    // realtime.timeout is 1 by default, in which a machine that runs other tests too may not get to an answer.
    this.settings = { ...(!handler && { handler: '' }), timeout: 20, log: path.join(this.logs, 'realtime.log'), log_level: 'info', ...settings };
    this.unix = unix;
    this.more = ini;
    labs.add(this);
  }

  /** With its ports and its php.ini. */
  static async make(options) {
    const lab = new Lab(options);
    [lab.port, lab.shopPort, lab.webPort] = [await freePort(), await freePort(), await freePort()];
    lab.listen = lab.unix ? `unix:${lab.runDir}/realtime-http.sock` : `127.0.0.1:${lab.port}`;
    lab.socket = path.join(lab.runDir, 'realtime.sock');
    lab.writeIni();
    return lab;
  }

  get url() { return `http://127.0.0.1:${this.webPort}`; }

  /** Where nginx or Apache has the hub. */
  get hubUrl() { return `${this.url}/realtime`; }

  file(...parts) { return path.join(this.home, ...parts); }

  /** Writes php.ini: the documented one, then what this lab has of its own, which wins. */
  writeIni(settings = {}) {
    Object.assign(this.settings, settings);
    const own = Object.entries({ ...(this.unix && { listen: this.listen }), ...this.settings })
      .map(([name, value]) => `realtime.${name}="${value}"`);
    writeFileSync(this.file('php.ini'), [
      this.adapt('php/fpm/realtime.ini').replace('extension=realtime.so', `extension=${this.extension}`),
      'html_errors=0', 'display_errors=0', 'log_errors=1', `error_log=${this.logs}/php.log`,
      `session.save_path=${this.home}/sessions`, 'opcache.enable=1', ...own, this.more, '',
    ].join('\n'));
  }

  /** A documented configuration, for this lab's paths, ports and users. */
  adapt(file, more = {}) {
    let text = readFileSync(path.join(root, file), 'utf8');
    // In this order: `more` comes first, and last it overrides.
    const changes = {
      ...more, '/srv/app': this.site, '/run/php': this.runDir, 'group = www-data': `group = ${user.group}`, 'www-data': user.name, '127.0.0.1:8080': `127.0.0.1:${this.port}`,
      '127.0.0.1:8081': `127.0.0.1:${this.shopPort}`, 'listen 80;': `listen 127.0.0.1:${this.webPort};`, ...more,
    };
    for (const [from, to] of Object.entries(changes)) text = text.replaceAll(from, to);
    return text;
  }

  /** Gives a file to who serves. */
  give(file, to = user) {
    if (isRoot) chownSync(file, to.uid, to.gid);
  }

  /** Writes a file of the site. */
  put(file, content) {
    writeFileSync(path.join(this.site, file), content);
  }

  log(name = 'realtime.log') {
    const file = path.join(this.logs, name);
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  /** Everything that was logged, for an error message. */
  allLogs() {
    return ['realtime.log', 'php.log', 'fpm.log', 'nginx.log', 'apache.log']
      .map((name) => [name, this.log(name).trim()]).filter(([, text]) => text)
      .map(([name, text]) => `--- ${name}\n${text.split('\n').slice(-40).join('\n')}`).join('\n');
  }

  /** Starts a program that stays, and remembers it; its output goes to a log. */
  start(command, args, { name, as, env = {} } = {}) {
    // In a process group of its own: Apache ends by a signal to its whole group.
    const child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'pipe'], env: this.environment(env), cwd: this.home, detached: true, ...identity(as),
    });
    this.pids.add(child.pid);
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { output += text; });
    child.output = () => output;
    child.label = name ?? command;
    child.ended = new Promise((done) => child.once('close', (code, how) => done(how ?? code)));
    child.once('exit', () => { child.over = true; this.pids.delete(child.pid); });
    child.once('error', (error) => { child.over = true; output += error.message; });
    return child;
  }

  /** Runs `php` on the command line to its end, with the same php.ini. By default as who serves. */
  async run(args, { as = user, settings = {} } = {}) {
    const options = Object.entries(settings).flatMap(([name, value]) => ['-d', `${name}=${value}`]);
    const child = spawn(php, ['-c', this.file('php.ini'), '-d', 'display_errors=stderr', '-d', 'log_errors=0', ...options, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'], env: this.environment(), cwd: this.site, ...identity(as),
    });
    const out = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr']) child[name].setEncoding('utf8').on('data', (text) => { out[name] += text; });
    const code = await new Promise((done) => child.once('close', done));
    return { code, ...out };
  }

  /** What `code` prints in such a process; an error when it fails. */
  async php(code, options) {
    const { code: status, stdout, stderr } = await this.run(['-r', code], options);
    if (status !== 0) throw new Error(`php -r ended with ${status}: ${stdout}${stderr}`);
    return stdout;
  }

  /** A PHP program on the command line that stays, as who serves. */
  program(file, ...args) {
    return this.start(php, ['-c', this.file('php.ini'), '-d', 'display_errors=stderr', '-d', 'log_errors=0', path.join(this.site, file), ...args],
      { name: file, as: user });
  }

  async stats() {
    return JSON.parse(await this.php('echo json_encode(rt_stats());'));
  }

  /** Asks a page of the site. */
  async get(target, options = {}) {
    const response = await fetch(`${this.url}${target}`, { signal: AbortSignal.timeout(60000), ...options });
    const text = await response.text();
    let json;
    try { json = JSON.parse(text); } catch { /* not every page is */ }
    return { status: response.status, headers: response.headers, text, json };
  }

  /** rt_broadcast() in a page. Returns what it printed: id, pid and the master's pid. */
  async push(channel, data, target = '/push.php') {
    const { status, json, text } = await this.get(`${target}?${new URLSearchParams({ channel, data: JSON.stringify(data) })}`);
    if (status !== 200 || !json?.id) throw new Error(`${target} answered ${status}: ${text}\n${this.allLogs()}`);
    return json;
  }

  /** The hub processes of this lab's addresses. */
  hubs() {
    const ours = [`127.0.0.1:${this.port}`, `127.0.0.1:${this.shopPort}`, `unix:${this.runDir}`, this.home];
    return processes().filter(({ title, state }) => state !== 'Z' && title.startsWith('realtime: hub')
      && ours.some((address) => title.includes(address)));
  }

  /** The only hub; waits for it. */
  async hub() {
    return (await until(() => this.hubs().length === 1 && this.hubs(), 'one hub', 30000, () => this.hubs()))[0];
  }

  /**
   * Fails when a process of this lab leaves zombies for good. A server buries its own children when it gets to it, Apache
   * once a second, so that one may be seen; when init buries is its business.
   */
  async noZombies() {
    const found = () => {
      const ours = new Set([...this.pids, ...this.hubs().map((hub) => hub.pid)]);
      // Workers too: it is one of them that starts the server's process.
      for (const { pid, parent } of processes()) if (this.pids.has(parent)) ours.add(pid);
      return zombies().filter(({ parent, name }) => ours.has(parent) || (/realtime/.test(name) && parent !== 1));
    };
    for (const { pid } of found()) await until(() => !found().some((one) => one.pid === pid), 'no zombie', 30000, found);
  }

  /** Ends everything and removes the directory. Says what did not end by itself when asked to. */
  async end() {
    closeAll();
    const kept = [...this.pids];
    for (const pid of kept) signal(pid, 'SIGTERM');
    for (const pid of kept) if (!await ends(pid, 5000)) signal(pid, 'SIGKILL');
    for (const hub of this.hubs()) signal(hub.pid, 'SIGTERM');
    for (const hub of this.hubs()) if (!await ends(hub.pid, 3000)) signal(hub.pid, 'SIGKILL');
    // Until they have gone they may still write into the directory.
    for (const pid of this.killAll()) await ends(pid);
    labs.delete(this);
    this.remove();
  }

  /** KEEP=1 leaves the directory to look at. */
  remove() {
    if (!process.env.KEEP) rmSync(this.home, { recursive: true, force: true, maxRetries: 3 });
  }

  /** Returns whom it has killed. */
  killAll() {
    // A worker of a master that was killed goes on, and is no child of ours: it stands in our directory.
    const others = [...processes().filter((one) => directoryOf(one.pid).startsWith(this.home)), ...this.hubs()].map(({ pid }) => pid);
    return [...this.pids, ...others].filter((pid) => pid !== process.pid && signal(pid, 'SIGKILL'));
  }

  environment(more = {}) {
    return {
      // No php.ini of this machine.
      PATH: `${process.env.PATH}:/usr/sbin:/sbin`, HOME: this.home, PHP_INI_SCAN_DIR: '', ...more,
    };
  }
}

/** Where a process stands; empty when that is not for us to know. */
export function directoryOf(pid) {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return '';
  }
}

/** What spawn() wants in order to run as somebody else. */
export function identity(as) {
  return isRoot && as ? { uid: as.uid, gid: as.gid } : {};
}

/** An account of this machine. */
export function account(name) {
  const line = readFileSync('/etc/passwd', 'utf8').split('\n').find((entry) => entry.startsWith(`${name}:`));
  const [, , uid, gid] = line.split(':');
  // A user's own group may have another name.
  const group = readFileSync('/etc/group', 'utf8').split('\n').find((entry) => entry.split(':')[2] === gid).split(':')[0];
  return { name, group, uid: Number(uid), gid: Number(gid) };
}
