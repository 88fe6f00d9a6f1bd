--TEST--
rt_broadcast() pushes to the subscribers of one or several channels
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_broadcast_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

$address = rt_listen();
$chat = new Socket($address, '/raw/chat');
$news = new Socket($address, '/raw/news');
$id = rt_broadcast('chat', ['id' => 42, 'price' => 0.1, 'name' => 'Zoë']);
var_dump(preg_match('/^[0-9a-f]{8}-1$/', $id));
echo $chat->receive(), "\n";
var_dump(preg_match('/^[0-9a-f]{8}-3$/', rt_broadcast(['chat', 'news'], 'both')));
echo $chat->receive(), ' ', $news->receive(), "\n";
foreach ([null, true, 7, [], [[]], new stdClass, "quote \" and \n"] as $data) {
    rt_broadcast('chat', $data);
    echo $chat->receive(), "\n";
}
?>
--EXPECTF--
int(1)
{"id":42,"price":0.1,"name":"Zo\u00eb"}
int(1)
both both
null
true
7
[]
[[]]
{}
quote " and 
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_broadcast_basic');
?>
