--TEST--
every kind of callable is one, in the scope in which it was given
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_message_callables/hub.sock
realtime.threads=1
error_reporting=E_ALL & ~E_DEPRECATED
--FILE--
<?php
require __DIR__ . '/client.inc';

function plain($m) { return $m->data === 1 ? 'function' : null; }
final class Handlers
{
    public function register(): void
    {
        rt_on_message([$this, 'hidden']);
        rt_on_message('self::hiddenToo');
        rt_on_message($this->firstClass(...));
    }
    private function hidden($m) { return $m->data === 2 ? 'private method' : null; }
    private static function hiddenToo($m) { return $m->data === 3 ? 'private static' : null; }
    private function firstClass($m) { return $m->data === 4 ? 'first class' : null; }
    public function __invoke($m) { return $m->data === 5 ? 'invokable' : null; }
    public function __call($name, $arguments) { return $arguments[0]->data === 6 ? "__call $name" : null; }
    public static function __callStatic($name, $arguments) { return $arguments[0]->data === 7 ? "__callStatic $name" : null; }
}
rt_on_message('plain');
(new Handlers)->register();
rt_on_message(new Handlers);
rt_on_message([new Handlers, 'anything']);
rt_on_message('Handlers::some');
$socket = new Socket(rt_listen(), '/ws');
$socket->frame();
for ($turn = 0; $turn < 2; $turn++) {
    for ($i = 1; $i <= 7; $i++) {
        $socket->send('{"type":"publish","channel":"chat","data":' . $i . ',"ref":1}');
        echo json_decode($socket->receive())->data, "\n";
    }
}
?>
--EXPECTF--
function
private method
private static
first class
invokable
__call anything
__callStatic some
function
private method
private static
first class
invokable
__call anything
__callStatic some
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_message_callables');
?>
