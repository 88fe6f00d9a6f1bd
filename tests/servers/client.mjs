// Clients of the hub: a bare WebSocket that notes every frame, and our own library.

import { Realtime } from '../../php/client/realtime.js';
import { WebSocket, sleep, until } from '../browser/support.mjs';

const clients = new Set();

/** Ends what a test that failed has left open, which would try to reconnect for ever. */
export function closeAll() {
  for (const client of clients) client.close();
  clients.clear();
}

/** One connection of the native protocol. */
export class Client {
  /** `url` is where the hub is, as http://…; the rest goes into the handshake. */
  constructor(url, { query = '', headers = {} } = {}) {
    this.frames = [];
    clients.add(this);
    this.socket = new WebSocket(`${url.replace(/^http/, 'ws')}/ws${query}`, 'realtime.v1', { headers });
    this.socket.on('message', (text) => this.frames.push(JSON.parse(text)));
    this.closed = new Promise((done) => {
      this.socket.once('close', (code, reason) => { this.over = { code, reason: String(reason) }; done(this.over); });
    });
    this.opened = new Promise((done, fail) => {
      this.socket.once('open', () => done(this));
      this.socket.once('unexpected-response', (_, response) => {
        response.resume();
        this.refused = response.statusCode;
        fail(Object.assign(new Error(`the handshake was answered with ${response.statusCode}`), { status: response.statusCode }));
      });
      this.socket.once('error', fail);
    });
    this.opened.catch(() => {});
  }

  static async open(url, { channels = [], ...options } = {}) {
    const client = await new Client(url, options).opened;
    await client.frame('welcome');
    for (const channel of channels) await client.subscribe(channel);
    return client;
  }

  send(frame) { this.socket.send(JSON.stringify(frame)); }

  /** Subscribes, and returns the answer; throws the error frame. */
  async subscribe(channel, since) {
    const ref = `s${this.frames.length}-${Math.random()}`;
    this.send({ type: 'subscribe', channel, ref, ...(since && { since }) });
    return this.answer(ref);
  }

  /** Publishes to PHP, and returns the reply's data; throws the error frame. */
  async publish(channel, data, event, ms) {
    const ref = `p${this.frames.length}-${Math.random()}`;
    this.send({ type: 'publish', channel, data, ref, ...(event && { event }) });
    return (await this.answer(ref, ms)).data;
  }

  async answer(ref, ms = 30000) {
    const frame = await until(() => this.frames.find((one) => one.ref === ref) ?? (this.over && { type: 'error', code: `closed with ${this.over.code}` }),
      `an answer to ${ref}`, ms, () => this.frames.slice(-5));
    if (frame.type === 'error') throw Object.assign(new Error(`${frame.code}: ${frame.message}`), { code: frame.code, frame });
    return frame;
  }

  /** Waits for a frame of this type that `test` accepts. */
  frame(type, test = () => true, ms = 30000) {
    return until(() => this.frames.find((frame) => frame.type === type && test(frame)), `a frame ${type}`, ms, () => this.frames.slice(-5));
  }

  /** The data of the messages of one channel so far. */
  data(channel) {
    return this.frames.filter((frame) => frame.type === 'message' && (!channel || frame.channel === channel)).map((frame) => frame.data);
  }

  /** Waits until there are `count` messages on a channel, and a little for one too many. */
  async messages(channel, count, ms = 30000) {
    await until(() => this.data(channel).length >= count, `${count} messages on ${channel}`, ms, () => [this.data(channel), this.over]);
    await sleep(30);
    return this.data(channel);
  }

  close() {
    clients.delete(this);
    this.socket.terminate();
  }
}

/** Our library on a WebSocket, noting what happens to it. */
export function library(url, options = {}) {
  const rt = new Realtime(`${url}/`, { WebSocket, minDelay: 50, maxDelay: 500, transports: ['ws'], ...options });
  clients.add(rt);
  rt.log = [];
  for (const event of ['open', 'close', 'error', 'gap']) rt.on(event, (info) => rt.log.push({ event, at: Date.now(), ...info, code: info?.code }));
  rt.times = (event) => rt.log.filter((entry) => entry.event === event).length;
  return rt;
}
