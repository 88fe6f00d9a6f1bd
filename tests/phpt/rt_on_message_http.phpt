--TEST--
POST /publish is answered with what the handler returns
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_message_http/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

rt_on_message(fn($m) => ['sum' => array_sum($m->data), 'by' => $m->from->transport]);
$json = ['Content-Type' => 'application/json'];
$answer = http(rt_listen(), 'POST /publish', '{"channel":"sums","data":[1,2,3]}', $json);
echo strtok($answer, "\r"), "\n", json_encode(json_decode(explode("\r\n\r\n", $answer)[1])->data), "\n";
rt_on_message(fn() => throw new Exception('no'), 'broken');
rt_on_error(fn() => null);
$answer = http(rt_listen(), 'POST /publish', '{"channel":"broken","data":"x"}', $json);
echo strtok($answer, "\r"), "\n";
?>
--EXPECTF--
HTTP/1.1 200 OK
{"sum":6,"by":"http"}
HTTP/1.1 502 Bad Gateway
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_message_http');
?>
