--TEST--
an error handler that throws does not end the loop either
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_message_error_handler/hub.sock
realtime.threads=1
log_errors=1
error_log={TMP}/realtime-phpt-rt_on_message_error_handler/php.log
--FILE--
<?php
require __DIR__ . '/client.inc';

set_error_handler(fn($no, $text) => throw new ErrorException(strtok($text, "\n")));
rt_on_message(fn($m) => $m->data === 'bad' ? throw new DomainException('thrown') : $m->data);
$socket = new Socket(rt_listen(), '/ws');
$socket->frame();
foreach (['bad', 'good'] as $data) {
    $socket->send('{"type":"publish","channel":"chat","data":"' . $data . '","ref":1}');
    echo $socket->frame(), "\n";
}
?>
--EXPECTF--
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}
{"type":"reply","ref":1,"data":"good"}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_message_error_handler');
?>
