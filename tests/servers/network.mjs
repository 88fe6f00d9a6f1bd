// Three network namespaces in a row: a server, a router and a client, whose connection can be lost without a word. Needs root.
//
// They live as long as the processes that hold them, which end with the lab.

import { spawnSync } from 'node:child_process';
import { isRoot } from './lab.mjs';
import { until } from '../browser/support.mjs';
import { look } from './proc.mjs';

export const SERVER = '10.77.1.1';

/** Why there can be none here; undefined when there can. */
export function refusal() {
  if (!isRoot) return 'needs root, for network namespaces';
  const { status, stderr, error } = spawnSync('unshare', ['-n', 'ip', 'link', 'add', 'name', 'rt0', 'type', 'veth', 'peer', 'name', 'rt1'], { encoding: 'utf8' });
  return status === 0 ? undefined : `network namespaces are not to be had here: ${error?.message ?? stderr.trim()}`;
}

export class Network {
  #lab;

  static async make(lab) {
    const network = new Network();
    network.#lab = lab;
    for (const name of ['server', 'router', 'client']) {
      const holder = lab.start('unshare', ['-n', 'sleep', '1000'], { name });
      network[name] = holder.pid;
      await until(() => look(holder.pid)?.name === 'sleep', `the namespace of the ${name}`);
    }
    const { server, router, client } = network;
    for (const [name, there, subnet] of [['server', server, 1], ['client', client, 2]]) {
      network.#run(router, 'ip', 'link', 'add', 'name', `to-${name}`, 'type', 'veth', 'peer', 'name', 'out', 'netns', String(there));
      network.#run(router, 'ip', 'addr', 'add', `10.77.${subnet}.254/24`, 'dev', `to-${name}`);
      network.#run(there, 'ip', 'addr', 'add', `10.77.${subnet}.1/24`, 'dev', 'out');
      for (const [pid, device] of [[router, `to-${name}`], [there, 'out'], [there, 'lo']]) network.#run(pid, 'ip', 'link', 'set', device, 'up');
      network.#run(there, 'ip', 'route', 'add', 'default', 'via', `10.77.${subnet}.254`);
    }
    network.restore();
    return network;
  }

  /** A command that runs another one there. */
  in(place) { return ['nsenter', '-t', String(this[place]), '-n', '--']; }

  /** From now on nothing arrives, and nobody is told. */
  cut() { this.#forward(0); }

  restore() { this.#forward(1); }

  #forward(how) { this.#run(this.router, 'sh', '-c', `echo ${how} >/proc/sys/net/ipv4/ip_forward`); }

  #run(pid, ...command) {
    const [nsenter, ...rest] = ['nsenter', '-t', String(pid), '-n', '--', ...command];
    const { status, stderr, error } = spawnSync(nsenter, rest, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`${command.join(' ')}: ${error?.message ?? stderr}`);
  }
}
