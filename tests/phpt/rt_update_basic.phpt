--TEST--
rt_update() publishes one update under several topics, privately, with its terms
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_update_basic/hub.sock
realtime.threads=1
realtime.mercure_publisher_key="a-secret-of-at-least-32-bytes-of-text"
realtime.mercure_subscriber_key="a-secret-of-at-least-32-bytes-of-text"
realtime.mercure_anonymous=1
--FILE--
<?php
require __DIR__ . '/client.inc';
require __DIR__ . '/mercure.inc';

$address = rt_listen();
$all = new Updates($address, ['a', 'b', 'c'], ['a', 'b']);
$anonymous = new Updates($address, ['a', 'b']);
$raw = new Socket($address, '/raw/b');

$id = rt_update('a', 'plain text');
var_dump(preg_match('/^urn:uuid:[0-9a-f-]{36}$/', $id));
echo json_encode([$all->next() === ['id' => $id, 'data' => 'plain text'], $anonymous->next()['data']]), "\n";

// One copy for who follows both; its native subscribers get what the text is.
$id = rt_update(['a', 'b', 'a'], "{\"x\":\n1}", type: 'paid', retry: 2500);
foreach ([$all, $anonymous] as $stream) {
    $update = $stream->next();
    var_dump($update['id'] === $id);
    unset($update['id']);
    echo json_encode($update), "\n";
}
echo json_encode($raw->receive()), "\n";
echo json_encode(array_map(fn($topic) => array_column(rt_history($topic), 'data'), ['a', 'b'])), "\n";

// Private: its alternate topic is one that the token covers. Given twice, an id is accepted once.
rt_update(topics: ['c', 'b'], data: 'secret', private: true);
echo rt_update('b', 'open', id: 'urn:x:1'), "\n";
echo rt_update('b', 'open', id: 'urn:x:1', type: null, retry: null), "\n";
rt_update('b', private: false, id: '', type: '');
echo $all->next()['data'], ' ', $all->next()['data'], ' ', json_encode($all->next()['data']), "\n";
echo $anonymous->next()['data'], ' ', json_encode($anonymous->next()['data']), "\n";
echo $raw->receive(), "\n";

// As an EventSource that reconnects says where it stands.
$again = new Updates($address, ['b'], ['b'], $id);
echo $again->next()['data'], ' ', $again->next()['data'], "\n";
?>
--EXPECT--
int(1)
[true,"plain text"]
bool(true)
{"event":"paid","retry":"2500","data":"{\"x\":\n1}"}
bool(true)
{"event":"paid","retry":"2500","data":"{\"x\":\n1}"}
"{\"x\":\n1}"
[["plain text",{"x":1}],[{"x":1}]]
urn:x:1
urn:x:1
secret open ""
open ""
open
secret open
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_update_basic');
?>
