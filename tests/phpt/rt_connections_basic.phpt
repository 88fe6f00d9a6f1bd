--TEST--
rt_connections() gives connections as they were opened
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_connections_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

$address = rt_listen();
$one = new Socket($address, '/raw/chat?name=Zo%C3%AB&tags[]=a&tags[k]=b', [
    'X-Twice' => "1\r\nX-Twice: 2",
    'Cookie' => 'a=1; b=x%20y; a=ignored; =nameless; flag; c[k]=v',
    'User-Agent' => 'test',
]);
$two = new Socket($address, '/ws');
var_dump(count(rt_connections()), count(rt_connections('chat')), rt_connections('none'));
[$c] = rt_connections('chat');
var_dump(preg_match('/^[0-9a-f]{32}$/', $c->id), $c->transport, $c->ip, $c->path, $c->user);
echo json_encode($c->query), "\n", json_encode($c->cookies), "\n";
echo json_encode(array_intersect_key($c->headers, ['x-twice' => 1, 'user-agent' => 1])), "\n";
?>
--EXPECTF--
int(2)
int(1)
array(0) {
}
int(1)
string(3) "raw"
string(9) "127.0.0.1"
string(9) "/raw/chat"
NULL
{"name":"Zo\u00eb","tags":{"0":"a","k":"b"}}
{"a":"1","b":"x y","c":{"k":"v"}}
{"x-twice":"1, 2","user-agent":"test"}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_connections_basic');
?>
