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
  // By address and channel: the newest ids of connections that have ended, oldest first.
  const left = new Map();
  runtime.createWebSocket = function (url) {
    const socket = create.call(this, url);
    const send = socket.send;
    const newest = new Map();
    socket.send = function (text) {
      return send.call(this, outgoing(url, newest, text));
    };
    socket.addEventListener('message', ({ data }) => {
      const { event, channel, id, recovered } = parse(data);
      if (!channel || !id) return;
      newest.set(channel, id);
      if (event === 'pusher_internal:subscription_succeeded' && recovered === false) onGap(channel);
    });
    socket.addEventListener('close', () => {
      for (const [channel, id] of newest) {
        const key = `${url} ${channel}`;
        left.set(key, [...(left.get(key) ?? []).slice(-9), id]);
      }
      newest.clear();
    });
    return socket;
  };
  const unsubscribe = Pusher.prototype.unsubscribe;
  Pusher.prototype.unsubscribe = function (channel) {
    // Without a connection pusher-js says nothing of it to the server.
    if (this.connection.state !== 'connected') for (const key of left.keys()) if (key.endsWith(` ${channel}`)) left.delete(key);
    return unsubscribe.call(this, channel);
  };
  return Pusher;

  function outgoing(url, newest, text) {
    const { event, data, ...rest } = parse(text);
    if (event === 'pusher:unsubscribe') newest.delete(data.channel);
    if (event !== 'pusher:subscribe' || !data?.channel) return text;
    const ids = left.get(`${url} ${data.channel}`);
    const since = ids?.shift();
    if (!since) return text;
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
