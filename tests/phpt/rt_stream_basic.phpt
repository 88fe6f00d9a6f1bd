--TEST--
rt_stream() is readable while an event or a timer waits
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_stream_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

function ready($stream, float $seconds): bool
{
    [$read, $write, $except] = [[$stream], null, null];
    return stream_select($read, $write, $except, (int) $seconds, (int) (fmod($seconds, 1) * 1e6)) === 1;
}
$address = rt_listen();
rt_on_message(fn($m) => print("$m->data\n"));
$stream = rt_stream();
var_dump(get_resource_type($stream), ready($stream, 0));
$socket = new Socket($address, '/raw/chat', [], fn() => usleep(1000));
$socket->send('one');
$socket->send('two');
$socket->sync();
var_dump(ready($stream, 10), rt_dispatch(1), ready($stream, 0), rt_dispatch(1), ready($stream, 0));
rt_after(0.5, fn() => print("timer\n"));
var_dump(ready($stream, 0), ready($stream, 10), rt_dispatch(), ready($stream, 0));
$timer = rt_every(0.02, fn() => print("again\n"));
var_dump(ready($stream, 10), rt_dispatch(), ready($stream, 10), rt_cancel($timer), ready($stream, 0.05));
$second = rt_stream();
$socket->send('three');
var_dump(ready($second, 10), ready($stream, 0), rt_dispatch(), ready($second, 0));
?>
--EXPECTF--
string(6) "stream"
bool(false)
one
two
bool(true)
int(1)
bool(true)
int(1)
bool(false)
timer
bool(false)
bool(true)
int(0)
bool(false)
again
bool(true)
int(0)
bool(true)
bool(true)
bool(false)
three
bool(true)
bool(true)
int(1)
bool(false)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_stream_basic');
?>
