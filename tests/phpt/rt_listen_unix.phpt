--TEST--
rt_listen() takes a Unix socket
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_listen_unix/hub.sock
realtime.threads=1
--FILE--
<?php
$path = sys_get_temp_dir() . '/realtime-phpt-rt_listen_unix/clients.sock';
@mkdir(dirname($path), 0700);
var_dump(rt_listen("unix:$path") === "unix:$path");
$stream = stream_socket_client("unix://$path");
fwrite($stream, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
echo strtok(stream_get_contents($stream), "\r"), "\n";
?>
--EXPECTF--
bool(true)
HTTP/1.1 200 OK
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_listen_unix');
?>
