// The demo page: a chat room, a live monitor, and one channel over three transports side by side.
// Everything that came over the wire enters the page as text, never as HTML.

import { Realtime } from './realtime.js';
import { Chart } from './chart.js';

const $ = (selector) => document.querySelector(selector);
const NAMES = { ws: 'WebSocket', sse: 'Server-Sent Events', poll: 'Long polling' };

function element(tag, text = '', properties = {}) {
  const node = Object.assign(document.createElement(tag), properties);
  node.textContent = text;
  return node;
}

/** Appends to a list that keeps its newest `most` entries, and scrolls down if the reader was there. */
function append(list, item, most) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(item);
  while (list.children.length > most) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

// ?transports=poll shows how the page works where only that gets through.
const only = new URLSearchParams(location.search).get('transports')?.split(',');
const rt = new Realtime('./', only ? { transports: only } : {});

/* ---- the connection's state ---- */

function show(pill, client) {
  const paint = () => {
    pill.dataset.state = client.state;
    pill.dataset.transport = client.transport ?? '';
    pill.lastChild.textContent = client.transport ? NAMES[client.transport] : 'reconnecting …';
  };
  client.on('open', paint);
  client.on('close', paint);
}
show($('#status'), rt);

/* ---- chat ---- */

const me = { tab: Math.random().toString(36).slice(2), name: '' };
const animals = ['Otter', 'Heron', 'Lynx', 'Badger', 'Swift', 'Marten', 'Ibex', 'Newt', 'Plover', 'Stoat'];
const nameOf = () => ($('#name').value.trim() || me.name);
me.name = sessionStorage.getItem('name') || `${animals[Math.floor(Math.random() * animals.length)]} ${Math.floor(Math.random() * 90 + 10)}`;
$('#name').value = me.name;
$('#name').addEventListener('change', () => {
  me.name = nameOf();
  $('#name').value = me.name;
  sessionStorage.setItem('name', me.name);
});

/** A chat message is what a page sent ({name, text}), or whatever another PHP process broadcast: a plain string, mostly. */
function read(data) {
  if (data && typeof data === 'object' && typeof data.text === 'string') return { name: String(data.name ?? ''), text: data.text };
  return { name: 'PHP', text: typeof data === 'string' ? data : JSON.stringify(data) };
}

function bubble({ name, text }, className = '') {
  const item = element('li', '', { className });
  const author = element('b', name);
  author.style.setProperty('--hue', [...name].reduce((sum, c) => (sum * 31 + c.codePointAt(0)) % 360, 7));
  if (!className.includes('own')) item.append(author);
  item.append(text);
  return item;
}
const note = (text) => append($('#log'), element('li', text, { className: 'note' }), 300);

rt.subscribe('chat', (data, { id }) => {
  const item = bubble(read(data));
  item.title = id ?? '';
  append($('#log'), item, 300);
});
rt.on('gap', ({ channel }) => channel === 'chat' && note('Some messages from the time without a connection are no longer kept.'));

async function say(text) {
  const message = { name: me.name, text, tab: me.tab, sent: Date.now() };
  const item = bubble(message, 'own sending');
  append($('#log'), item, 300);
  $('#log').scrollTop = $('#log').scrollHeight;
  try {
    const reply = await rt.publish('chat', message);
    if (reply?.error) throw new Error(reply.error);
    item.title = reply?.id ?? '';
  } catch (error) {
    item.classList.add('failed');
    item.append(` (not sent: ${error.message})`);
  }
  item.classList.remove('sending');
}

$('#say').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = $('#text').value.trim();
  $('#text').value = '';
  if (text) say(text);
});

/* ---- the monitor ---- */

const charts = {
  cpu: new Chart($('#chart-cpu'), 25),
  rate: new Chart($('#chart-rate'), 10),
  connections: new Chart($('#chart-connections'), 4),
};
rt.subscribe('monitor', (point) => {
  $('#load').textContent = point.load ? `load ${point.load.map((n) => n.toFixed(2)).join('  ')}` : '';
  $('#cpu').textContent = point.cpu === null ? 'n/a' : `${Math.round(point.cpu)} %`;
  $('#rate').textContent = Math.round(point.rate).toLocaleString('en');
  $('#connections').textContent = point.connections.toLocaleString('en');
  for (const [name, chart] of Object.entries(charts)) chart.add(point[name] ?? 0);
});

/* ---- one channel, three transports ---- */

const panes = $('#panes');
let clients = [];

function pane(kind) {
  const box = element('article', '', { className: 'pane' });
  box.dataset.kind = kind;
  const pill = element('span', '', { className: 'pill' });
  pill.dataset.state = 'connecting';
  pill.append(element('i'), element('span', 'connecting …'));
  const title = element('h3', NAMES[kind]);
  title.append(pill);
  const list = element('ol');
  box.append(title, list);
  panes.append(box);

  const client = new Realtime('./', { transports: [kind] });
  const paint = () => {
    pill.dataset.state = client.state;
    pill.lastChild.textContent = client.state === 'open' ? client.transport : 'reconnecting …';
  };
  client.on('open', paint);
  client.on('close', paint);
  client.subscribe('chat', (data, { id }) => {
    const item = element('li');
    const { name, text } = read(data);
    item.append(element('span', `${name}: ${text}`), element('code', id));
    // Only this tab's own messages were sent by this tab's clock.
    if (data?.tab === me.tab) item.append(element('em', `${Math.max(0, Date.now() - data.sent)} ms`));
    append(list, item, 100);
  });
  return client;
}

$('#compare').addEventListener('click', async () => {
  const opening = panes.hidden;
  panes.hidden = !opening;
  $('#compare').setAttribute('aria-expanded', opening);
  $('#compare').textContent = opening ? 'Close the three connections' : 'Same channel over WebSocket, SSE and long polling side by side';
  for (const client of clients) client.close();
  clients = [];
  panes.replaceChildren();
  if (opening) clients = Object.keys(NAMES).map(pane);
});

/* ---- the rest ---- */

$('#theme').addEventListener('click', () => {
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const now = document.documentElement.dataset.theme ?? (dark ? 'dark' : 'light');
  document.documentElement.dataset.theme = now === 'dark' ? 'light' : 'dark';
});

$('#copy').addEventListener('click', async () => {
  await navigator.clipboard.writeText($('#command').textContent);
  $('#copy').textContent = 'Copied';
  setTimeout(() => { $('#copy').textContent = 'Copy'; }, 1500);
});
// The server knows which file it was loaded from, so that the command works as it stands.
rt.publish('about', null).then((about) => { if (about?.command) $('#command').textContent = about.command; }, () => {});
