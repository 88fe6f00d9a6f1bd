--TEST--
rt_listen() starts the server and returns its address
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_listen_basic/hub.sock
realtime.threads=1
--FILE--
<?php
$address = rt_listen();
var_dump(preg_match('/^127\.0\.0\.1:[1-9]\d*$/', $address));
var_dump(rt_listen() === $address, rt_listen($address) === $address);
$stream = stream_socket_client("tcp://$address");
fwrite($stream, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
echo strtok(stream_get_contents($stream), "\r"), "\n";
var_dump(fileperms(dirname(ini_get('realtime.socket'))) & 0777, fileperms(ini_get('realtime.socket')) & 0777);
?>
--EXPECTF--
int(1)
bool(true)
bool(true)
HTTP/1.1 200 OK
int(448)
int(384)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_listen_basic');
?>
