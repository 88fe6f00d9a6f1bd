// A client on another machine: `node visitor.mjs <what> <host:port> <token> <module of ws>` enters presence-room, and says each thing
// that happens to it in a line.
import http from 'node:http';

const [what, server, token, module] = process.argv.slice(2);
const say = (line) => console.log(line);

if (what === 'ws') {
  const { default: WebSocket } = await import(module);
  const socket = new WebSocket(`ws://${server}/ws`, ['realtime.v1', `realtime.token.${token}`]);
  socket.on('open', () => socket.send(JSON.stringify({ type: 'subscribe', channel: 'presence-room', ref: '1' })));
  socket.on('message', (text) => say(String(text)));
  socket.on('close', (code) => say(`closed ${code}`)).on('error', (error) => say(`error ${error.code}`));
} else {
  http.get(`http://${server}/sse?channel=presence-room&token=${token}`, (response) => {
    say(`status ${response.statusCode}`);
    response.on('data', (text) => process.stdout.write(text)).on('end', () => say('end')).on('error', (error) => say(`error ${error.code}`));
  }).on('error', (error) => say(`error ${error.code}`));
}
setInterval(() => {}, 1000);
