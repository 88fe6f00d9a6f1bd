--TEST--
what an rt_on_message() handler throws or cannot say ends nothing
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_message_error/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';
function attempt(callable $call): void
{
    try {
        echo json_encode($call()), "\n";
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}

attempt(fn() => rt_on_message(fn() => 1, 'two words'));
attempt(fn() => rt_on_message(fn() => 1, ''));
attempt(fn() => rt_on_message('no_such_function'));
rt_on_message(fn($m) => match ($m->data) {
    'throw' => throw new DomainException('thrown'),
    'error' => undefined_function(),
    'nan' => NAN,
    default => 'served on',
});
$socket = new Socket(rt_listen(), '/ws');
$socket->frame();
foreach (['throw', 'error', 'nan', 'fine'] as $data) {
    $socket->send('{"type":"publish","channel":"chat","data":"' . $data . '","ref":1}');
    echo $socket->frame(), "\n";
}
?>
--EXPECTF--
ValueError: rt_on_message(): Argument #2 ($channel) must be a channel name of letters, digits and _ - = @ , . ; : / ? & # % + ~ ! $ ( ) [ ] that does not begin with #, found ' '
ValueError: rt_on_message(): Argument #2 ($channel) must be a channel name of 1 to 200 bytes, 0 given
TypeError: rt_on_message(): Argument #1 ($handler) must be a valid callback, function "no_such_function" not found or invalid function name

Warning: rt_run(): Uncaught DomainException: thrown in %a
  thrown in an rt_on_message() handler in %s on line %d
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}

Warning: rt_run(): Uncaught Error: Call to undefined function undefined_function() in %a
  thrown in an rt_on_message() handler in %s on line %d
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}

Warning: rt_run(): Uncaught ValueError: rt_on_message(): Return value of the handler must be JSON-encodable: Inf and NaN cannot be JSON encoded in %a
  thrown in an rt_on_message() handler in %s on line %d
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}
{"type":"reply","ref":1,"data":"served on"}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_message_error');
?>
