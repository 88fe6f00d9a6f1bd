// The real servers: PHP-FPM, nginx, Apache and `php -S`, each started in a lab and ended by its process id.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { until } from '../browser/support.mjs';
import { Lab, isRoot, user } from './lab.mjs';
import { alive, children, ends, signal } from './proc.mjs';

const php = process.env.PHP || 'php';
const version = execFileSync(php, ['-n', '-r', 'echo PHP_MAJOR_VERSION, ".", PHP_MINOR_VERSION;'], { encoding: 'utf8' });
const extensions = execFileSync(php, ['-n', '-r', 'echo ini_get("extension_dir");'], { encoding: 'utf8' });

/** Lines of php.ini for what Debian loads from files of its own. */
export const shared = ['posix', 'pcntl', 'sysvshm'].filter((name) => existsSync(`${extensions}/${name}.so`)).map((name) => `extension=${name}`)
  .concat(existsSync(`${extensions}/opcache.so`) ? ['zend_extension=opcache'] : []).join('\n');

/** PHP-FPM with the documented pools. */
export class Fpm {
  /**
   * `pools`: files of php/fpm; `pool`: lines that win over theirs, by pool; `daemon`: whether it daemonizes; `wrap`: a command
   * that starts it; `as`: who the pool's workers are; `name`: of its files, when a lab has several masters.
   */
  constructor(lab, { pools = ['www.conf'], pool = {}, daemon = false, wrap = [], args = [], extra = '', as, name: own = 'fpm' } = {}) {
    Object.assign(this, { lab, daemon, wrap, args, own });
    this.pidFile = lab.file(`${own}.pid`);
    this.pools = lab.file(own === 'fpm' ? 'pool.d' : `${own}.d`);
    this.sockets = pools.map((name) => lab.file('run', name === 'www.conf' ? 'php8.2-fpm.sock' : `php8.2-fpm-${name.replace('.conf', '')}.sock`));
    mkdirSync(this.pools, { recursive: true });
    for (const name of pools) {
      const lines = Object.entries(pool[name.replace('.conf', '')] ?? (name === 'www.conf' ? pool : {}))
        .filter(([, value]) => typeof value !== 'object').map(([key, value]) => `${key} = ${value}`);
      writeFileSync(`${this.pools}/${name}`, [lab.adapt(`php/fpm/${name}`, as && { 'user = www-data': `user = ${as}`, 'owner = www-data': `owner = ${as}`, 'group = www-data': `group = ${as}` }), ...lines, ''].join('\n'));
    }
    writeFileSync(lab.file(`${own}.conf`), [
      '[global]', `pid = ${this.pidFile}`, `error_log = ${lab.logs}/${own}.log`, extra, `include = ${this.pools}/*.conf`, '',
    ].join('\n'));
  }

  /** Starts the master and waits until its pools take requests. */
  async start() {
    const ready = this.#times('ready to handle connections');
    const fpm = `php-fpm${version}`;
    const [command, ...rest] = [...this.wrap, fpm, '-c', this.lab.file('php.ini'), '-y', this.lab.file(`${this.own}.conf`), this.daemon ? '-D' : '-F', ...this.args];
    this.child = this.lab.start(command, rest, { name: 'fpm' });
    const up = () => this.#times('ready to handle connections') > ready && this.sockets.every((path) => existsSync(path));
    await until(() => up() || (this.child.over && !this.daemon), 'PHP-FPM', 30000, () => this.child.output());
    if (!up()) throw new Error(`PHP-FPM ended: ${this.child.output()}${this.lab.log(`${this.own}.log`)}`);
    this.#remember();
    return this;
  }

  /** The master's process id; a daemonized one has another after a reload. */
  get master() {
    // In a container of its own the file says 1, which here is somebody else.
    if (this.wrap.length) return children(this.child.pid)[0].pid;
    return this.daemon ? Number(readFileSync(this.pidFile, 'utf8')) : this.child.pid;
  }

  workers(pool = 'www') {
    return children(this.master).filter(({ title, state }) => state !== 'Z' && title === `php-fpm: pool ${pool}`);
  }

  /** Reloads it, as `systemctl reload` does, and waits until the new workers take requests. */
  async reload() {
    const [ready, before] = [this.#times('ready to handle connections'), this.master];
    signal(before, 'SIGUSR2');
    await until(() => this.#times('ready to handle connections') > ready, 'the end of a reload', 30000, () => this.lab.allLogs());
    // Daemonized again: the master that says so is another process.
    if (this.daemon) await until(() => this.master !== before && alive(this.master), 'a new master', 30000);
    this.#remember();
  }

  async stop(how = 'SIGTERM') {
    const { master } = this;
    signal(master, how);
    if (!await ends(master, 30000)) throw new Error(`PHP-FPM's master did not end of ${how}`);
    this.lab.pids.delete(master);
  }

  #remember() {
    if (this.daemon) this.lab.pids.add(this.master);
  }

  #times(text) {
    return this.lab.log(`${this.own}.log`).split(text).length - 1;
  }
}

/** nginx with the documented site. `extra` goes into its server block; `protocols`: whether it has Pusher's and Mercure's addresses. */
export class Nginx {
  constructor(lab, { extra = '', protocols = false } = {}) {
    this.lab = lab;
    mkdirSync(lab.file('nginx/snippets'), { recursive: true });
    for (const directory of ['body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']) {
      mkdirSync(lab.file('nginx', directory));
      lab.give(lab.file('nginx', directory));
    }
    // What Debian has in /etc/nginx and the documented site includes.
    symlinkSync('/etc/nginx/snippets/fastcgi-php.conf', lab.file('nginx/snippets/fastcgi-php.conf'));
    symlinkSync('/etc/nginx/fastcgi.conf', lab.file('nginx/fastcgi.conf'));
    let snippet = lab.adapt('php/nginx/realtime.conf');
    if (lab.unix) {
      const [tcp, unix] = [/^( *)proxy_pass http:\/\/127.*$/m, /^( *)# (proxy_pass http:\/\/unix:.*)$/m];
      if (!tcp.test(snippet) || !unix.test(snippet)) throw new Error('php/nginx/realtime.conf has lost one of its two addresses');
      snippet = snippet.replace(tcp, '').replace(unix, '$1$2');
    }
    writeFileSync(lab.file('nginx/snippets/realtime.conf'), snippet);
    writeFileSync(lab.file('nginx/snippets/realtime-protocols.conf'), lab.adapt('php/nginx/realtime-protocols.conf'));
    let site = lab.adapt('php/nginx/site.conf');
    if (protocols) site = site.replace('# include snippets/realtime-protocols.conf;', 'include snippets/realtime-protocols.conf;');
    writeFileSync(lab.file('nginx/site.conf'), site.replace(/\}\s*$/, `${extra}\n}\n`));
    writeFileSync(lab.file('nginx/nginx.conf'), `${isRoot ? `user ${user.name};` : ''}
      worker_processes 1; daemon off; pid ${lab.file('nginx.pid')}; error_log ${lab.logs}/nginx.log;
      worker_rlimit_nofile 8192; events { worker_connections 4096; }
      http {
        types { text/html html; text/javascript js; } access_log off;
        ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${lab.file('nginx', name.replace('client_', ''))};`).join(' ')}
        include site.conf;
      }\n`);
  }

  async start() {
    this.child = this.lab.start('nginx', ['-p', this.lab.file('nginx'), '-c', this.lab.file('nginx/nginx.conf'), '-e', this.lab.file('log/nginx.log')]);
    await listening(this.lab.webPort, this.child);
    return this;
  }
}

/** Apache with mod_php in prefork processes and the documented proxy, with `protocols` also for Pusher's and Mercure's addresses. */
export class Apache {
  constructor(lab, { directives = '', protocols = false } = {}) {
    this.lab = lab;
    const modules = '/usr/lib/apache2/modules';
    const load = ['mpm_prefork', 'authz_core', 'mime', 'dir', 'env', 'proxy', 'proxy_http', 'proxy_wstunnel']
      .map((name) => `LoadModule ${name}_module ${modules}/mod_${name}.so`);
    mkdirSync(lab.file('apache'));
    writeFileSync(lab.file('apache/realtime.conf'), lab.adapt('php/apache/realtime.conf'));
    writeFileSync(lab.file('apache/realtime-protocols.conf'), lab.adapt('php/apache/realtime-protocols.conf'));
    writeFileSync(lab.file('apache/apache2.conf'), [
      `ServerRoot ${lab.file('apache')}`, `PidFile ${lab.file('apache.pid')}`, `Listen 127.0.0.1:${lab.webPort}`, 'ServerName app.example',
      `DefaultRuntimeDir ${lab.file('apache')}`, `Mutex file:${lab.file('apache')} default`,
      ...load, `LoadModule php_module ${modules}/libphp${version}.so`,
      ...(isRoot ? [`User ${user.name}`, `Group ${user.group}`] : []),
      `ErrorLog ${lab.logs}/apache.log`, 'LogLevel warn', 'TypesConfig /dev/null', `PHPIniDir ${lab.home}`, `DocumentRoot ${lab.site}/public`,
      `<Directory ${lab.site}/public>`, 'Require all granted', '</Directory>', '<FilesMatch \\.php$>', 'SetHandler application/x-httpd-php', '</FilesMatch>',
      'StartServers 3', 'MinSpareServers 2', 'MaxSpareServers 6', 'MaxRequestWorkers 30', directives,
      // In the order of their names, as Debian does it.
      ...(protocols ? ['Include realtime-protocols.conf'] : []), 'Include realtime.conf', '',
    ].join('\n'));
  }

  async start() {
    this.child = this.lab.start('apache2', ['-DFOREGROUND', '-d', this.lab.file('apache'), '-f', this.lab.file('apache/apache2.conf')]);
    await listening(this.lab.webPort, this.child);
    return this;
  }

  get master() { return this.child.pid; }

  workers() { return children(this.master).filter(({ state }) => state !== 'Z'); }

  async stop(how = 'SIGTERM') {
    signal(this.master, how);
    if (!await ends(this.master, 30000)) throw new Error(`Apache did not end of ${how}`);
  }
}

/** `php-cgi` with several workers, where nginx expects PHP-FPM. */
export class Cgi {
  static binary = `php-cgi${version}`;

  constructor(lab, { workers = 3, requests = 500 } = {}) {
    Object.assign(this, { lab, socket: lab.file('run/php8.2-fpm.sock'), sockets: [lab.file('run/php8.2-fpm.sock')] });
    this.env = { PHP_FCGI_CHILDREN: String(workers), PHP_FCGI_MAX_REQUESTS: String(requests) };
  }

  async start() {
    this.child = this.lab.start(Cgi.binary, ['-c', this.lab.file('php.ini'), '-b', this.socket], { as: user, env: this.env });
    await until(() => this.child.over || existsSync(this.socket), 'php-cgi', 30000, () => this.child.output());
    if (this.child.over) throw new Error(`php-cgi ended: ${this.child.output()}`);
    return this;
  }

  get master() { return this.child.pid; }

  async stop() {
    signal(this.master, 'SIGTERM');
    if (!await ends(this.master, 30000)) throw new Error('php-cgi did not end of SIGTERM');
  }
}

/** `php -S` with several workers. */
export class CliServer {
  constructor(lab, { workers = 4 } = {}) {
    Object.assign(this, { lab, workers: String(workers) });
  }

  async start() {
    this.child = this.lab.start(php, ['-c', this.lab.file('php.ini'), '-S', `127.0.0.1:${this.lab.webPort}`, '-t', this.lab.file('app/public')],
      { as: user, env: { PHP_CLI_SERVER_WORKERS: this.workers } });
    await listening(this.lab.webPort, this.child);
    return this;
  }

  async stop() {
    // Its workers do not end with it, unless the signal goes to all, as Ctrl-C in a terminal does.
    signal(-this.child.pid, 'SIGTERM');
    await this.child.ended;
  }
}

/** A lab with PHP-FPM behind nginx. */
export async function site({ lab: options, fpm: fpmOptions, nginx: nginxOptions } = {}) {
  const lab = await Lab.make({ ...options, ini: `${shared}\n${options?.ini ?? ''}` });
  lab.fpm = await new Fpm(lab, fpmOptions).start();
  // Where the first pool listens is known only here.
  const extra = nginxOptions?.extra?.replaceAll('SOCKET', lab.fpm.sockets[0]).replaceAll('SITE', lab.site);
  lab.nginx = await new Nginx(lab, { ...nginxOptions, extra }).start();
  return lab;
}

async function listening(port, child) {
  const open = () => new Promise((done) => {
    const socket = net.connect(port, '127.0.0.1', () => { socket.destroy(); done(true); });
    socket.once('error', () => done(false));
  });
  await until(async () => child.over || await open(), `a server on port ${port}`, 30000, () => child.output());
  if (child.over) throw new Error(`${child.label} ended: ${child.output()}`);
}
