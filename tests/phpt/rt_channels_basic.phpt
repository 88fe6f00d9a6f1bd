--TEST--
rt_channels() counts subscribers by channel
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_channels_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

$address = rt_listen();
var_dump(rt_channels());
$sockets = [];
foreach (['chat.1', 'chat.1', 'chat.2', 'news'] as $channel) {
    $sockets[] = new Socket($address, "/raw/$channel");
}
echo json_encode(rt_channels()), json_encode(rt_channels('chat.*')), json_encode(rt_channels('*2')), "\n";
?>
--EXPECTF--
array(0) {
}
{"chat.1":2,"chat.2":1,"news":1}{"chat.1":2,"chat.2":1}{"chat.2":1}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_channels_basic');
?>
