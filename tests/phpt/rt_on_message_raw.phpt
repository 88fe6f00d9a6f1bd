--TEST--
on /raw text is a string and bytes are a Realtime\Binary, both ways
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_message_raw/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

rt_on_message(function ($m) {
    var_dump($m->data);
    return $m->data;
});
$socket = new Socket(rt_listen(), '/raw/chat');
$socket->send('plain text');
echo $socket->receive(), "\n";
$socket->send("\x01\xff", 2);
echo $socket->receive(), "\n";
?>
--EXPECTF--
string(10) "plain text"
plain text
object(Realtime\Binary)#%d (1) {
  ["bytes"]=>
  string(2) "%s"
}
binary 01ff
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_message_raw');
?>
