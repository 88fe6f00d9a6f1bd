--TEST--
rt_on_error() handlers get what others throw; what they throw is a warning
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_error_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

rt_on_message(fn($m) => throw new DomainException($m->data));
rt_on_error(fn(Realtime\Connection $c, Throwable $e) => print("first: {$e->getMessage()}\n"));
rt_on_error(fn($c, $e) => $e->getMessage() === 'two' ? throw new LogicException('again') : print("second\n"));
$socket = new Socket(rt_listen(), '/ws');
$socket->frame();
foreach (['one', 'two'] as $data) {
    $socket->send('{"type":"publish","channel":"chat","data":"' . $data . '","ref":1}');
    echo json_decode($socket->receive())->code, "\n";
}
?>
--EXPECTF--
first: one
second
handler_failed
first: two

Warning: rt_run(): Uncaught LogicException: again in %a
  thrown in an rt_on_error() handler in %s on line %d
handler_failed
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_error_basic');
?>
