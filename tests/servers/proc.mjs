// What the kernel tells of processes: who is whose child, who is a zombie, which descriptors one holds.

import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { sleep } from '../browser/support.mjs';

/** What /proc knows of a process; undefined when there is none with that id. */
export function look(pid) {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name stands in brackets and may hold anything.
    const [, name, rest] = /^\d+ \((.*)\) (.*)$/s.exec(text);
    const fields = rest.split(' ');
    return { pid: Number(pid), name, state: fields[0], parent: Number(fields[1]), session: Number(fields[3]), title: title(pid) };
  } catch {
    return undefined;
  }
}

/** Its command line, or what it made of it. */
function title(pid) {
  return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
}

export function processes() {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(look).filter(Boolean);
}

/** Whether it runs: a zombie does not, unless another thread than its first has yet to end. */
export function alive(pid) {
  const found = look(pid);
  return found !== undefined && (!'ZX'.includes(found.state) || threads(pid).some((state) => !'ZX'.includes(state)));
}

/** The states of its threads; one that ends meanwhile counts as ended. */
function threads(pid) {
  let ids;
  try {
    ids = readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
  return ids.map((id) => {
    try {
      return /^\d+ \(.*\) (.)/s.exec(readFileSync(`/proc/${pid}/task/${id}/stat`, 'utf8'))[1];
    } catch {
      return 'X';
    }
  });
}

export const children = (pid) => processes().filter((process) => process.parent === pid);

export const zombies = () => processes().filter((process) => process.state === 'Z');

/** The owner of a process. */
export function uid(pid) {
  return Number(/^Uid:\s+\d+\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
}

/** What each open descriptor of a process is: a path, `socket:[inode]`, `pipe:[inode]`, … */
export function descriptors(pid) {
  let list;
  try {
    list = readdirSync(`/proc/${pid}/fd`);
  } catch (error) {
    if (error.code === 'ENOENT' || error.code === 'ESRCH') return []; // the process has ended meanwhile
    throw error;
  }
  return list.map((fd) => {
    try {
      return { fd: Number(fd), is: readlinkSync(`/proc/${pid}/fd/${fd}`) };
    } catch {
      return undefined; // closed meanwhile
    }
  }).filter(Boolean);
}

/** The inodes of all Unix sockets with this path: the listening one and the server's ends of its connections. */
export function socketsAt(path) {
  return readFileSync('/proc/net/unix', 'utf8').split('\n').map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[7] === path).map((fields) => `socket:[${fields[6]}]`);
}

/** Soft and hard limit of open files. */
export function fileLimits(pid) {
  return /^Max open files\s+(\d+)\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8')).slice(1).map(Number);
}

/** Sends a signal; false when there is nobody to get it. */
export function signal(pid, name) {
  try {
    process.kill(pid, name);
    return true;
  } catch {
    return false;
  }
}

/**
 * Stops a process, and returns when it stands still: the signal is for one of its threads, and until that one has run
 * (which takes its time where there is more to do than cores) the others work on.
 */
export async function stop(pid) {
  signal(pid, 'SIGSTOP');
  for (const late = Date.now() + 30000; !threads(pid).every((state) => state === 'T'); await sleep(1)) {
    if (Date.now() > late) throw new Error(`${pid} does not stop: ${threads(pid)}`);
  }
}

/** Kills processes, and returns when they are gone: until then, they may answer. */
export async function kill(...pids) {
  for (const pid of pids) signal(pid, 'SIGKILL');
  for (const pid of pids) if (!await ends(pid)) throw new Error(`${pid} does not end`);
}

/** Waits for the end of a process; false when it still runs after `ms`. */
export async function ends(pid, ms = 30000) {
  for (const late = Date.now() + ms; alive(pid); await sleep(10)) {
    if (Date.now() > late) return false;
  }
  return true;
}
