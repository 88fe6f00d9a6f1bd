// An authority of the tests' own: certificates for localhost that only those trust who know it. Made by openssl.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'] });
const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

export class Authority {
  #issued = 0;

  constructor() {
    this.home = mkdtempSync(path.join(os.tmpdir(), 'rt-ca-'));
    this.file = this.#path('ca.pem');
    openssl('req', '-x509', ...KEY, '-keyout', this.#path('ca.key'), '-out', this.file, '-days', '30', '-subj', '/CN=tests of realtime',
      '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign');
    this.ca = readFileSync(this.file, 'utf8');
  }

  /** A new certificate and its key; paths. */
  issue() {
    const [cert, key, request, extensions] = ['cert', 'key', 'req', 'ext'].map((name) => this.#path(`${++this.#issued}.${name}`));
    openssl('req', ...KEY, '-keyout', key, '-out', request, '-subj', '/CN=localhost');
    writeFileSync(extensions, 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n');
    openssl('x509', '-req', '-in', request, '-CA', this.file, '-CAkey', this.#path('ca.key'), '-CAcreateserial', '-days', '30',
      '-extfile', extensions, '-out', cert);
    return { cert, key };
  }

  /** Has Chromium trust it that runs with this as its HOME, as a user would who imports it. */
  trustedBy(home) {
    const database = `sql:${path.join(home, '.pki/nssdb')}`;
    execFileSync('mkdir', ['-p', path.join(home, '.pki/nssdb')]);
    execFileSync('certutil', ['-d', database, '-N', '--empty-password']);
    execFileSync('certutil', ['-d', database, '-A', '-t', 'C,,', '-n', 'tests of realtime', '-i', this.file]);
  }

  remove() {
    rmSync(this.home, { recursive: true, force: true });
  }

  #path(name) {
    return path.join(this.home, name);
  }
}
