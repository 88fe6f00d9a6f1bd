/* Lets pusher-js and Laravel Echo get what they missed while they were away. Part of realtime (MIT). */

// How it works: realtime puts an id into every message and every answer to a subscription, at which pusher-js does not look.
// This notes the newest of each channel. When pusher-js reconnects and subscribes again, the id goes along as since, and the
// server begins with what came after it. Only the WebSocket that pusher-js gets is changed, not pusher-js: other servers see
// one more field in pusher:subscribe, which they do not look at.

/**
 * Takes the Pusher class of pusher-js (window.Pusher), and returns it.
 * `onGap(channel)` is called when the server no longer has all that was missed.
 */
export function resume(Pusher, { onGap = () => {} } = {}) {
  const runtime = Pusher.Runtime;
  const create = runtime.createWebSocket;
  // By Pusher object and channel: the newest id when its connection ended.
  const left = new WeakMap();
  runtime.createWebSocket = function (url) {
    const socket = create.call(this, url);
    const send = socket.send;
    const newest = new Map();
    let name;
    let owner;
    socket.send = function (text) {
      // pusher-js knows its name before it subscribes to anything.
      owner ??= Pusher.instances.find(({ connection }) => name && connection.socket_id === name);
      return send.call(this, outgoing(owner, newest, text));
    };
    socket.addEventListener('message', ({ data: text }) => {
      const { event, channel, id, recovered, data } = parse(text);
      if (event === 'pusher:connection_established') name = parse(data).socket_id;
      if (!channel || !id) return;
      newest.set(channel, id);
      if (event === 'pusher_internal:subscription_succeeded' && recovered === false) onGap(channel);
    });
    socket.addEventListener('close', () => {
      if (owner) for (const [channel, id] of newest) of(owner).set(channel, id);
      newest.clear();
    });
    return socket;
  };
  const unsubscribe = Pusher.prototype.unsubscribe;
  Pusher.prototype.unsubscribe = function (channel) {
    // Without a connection pusher-js says nothing of it to the server.
    if (this.connection.state !== 'connected') of(this).delete(channel);
    return unsubscribe.call(this, channel);
  };
  return Pusher;

  function of(owner) {
    if (!left.has(owner)) left.set(owner, new Map());
    return left.get(owner);
  }

  function outgoing(owner, newest, text) {
    const { event, data, ...rest } = parse(text);
    if (event === 'pusher:unsubscribe') newest.delete(data.channel);
    if (event !== 'pusher:subscribe' || !owner || !data?.channel) return text;
    const since = of(owner).get(data.channel);
    if (!since) return text;
    of(owner).delete(data.channel);
    // Until the answer comes: if the connection ends before that, nothing was got.
    newest.set(data.channel, since);
    return JSON.stringify({ event, data: { ...data, since }, ...rest });
  }
}

function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
