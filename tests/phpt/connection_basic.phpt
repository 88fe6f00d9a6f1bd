--TEST--
Realtime\Connection is readonly through and through
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-connection_basic/hub.sock
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

$socket = new Socket(rt_listen(), '/raw/chat?a=1');
[$c] = rt_connections();
[$again] = rt_connections();
// Before anything was read.
attempt(fn() => $c == $again);
attempt(fn() => isset($again->query['a'], $again->id) && !isset($again->user) && !isset($again->nothing));
attempt(fn() => $c->id = 'x');
attempt(fn() => $c->query['a'] = 'x');
attempt(function () use ($c) { $reference = &$c->headers; });
attempt(function () use ($c) { unset($c->path); });
attempt(fn() => $c->colour = 'red');
attempt(fn() => $c->colour);
attempt(fn() => clone $c);
attempt(fn() => serialize($c));
attempt(fn() => new Realtime\Connection);
attempt(fn() => (new ReflectionClass($c))->newInstanceWithoutConstructor());
[$fresh] = rt_connections();
attempt(fn() => array_keys((array) $fresh));
[$fresh] = rt_connections();
foreach ($fresh as $name => $value) {
    echo $name, ' ';
}
echo "\n";
[$fresh] = rt_connections();
attempt(fn() => json_decode(json_encode($fresh))->query);
[$fresh] = rt_connections();
attempt(fn() => (new ReflectionProperty($fresh, 'path'))->getValue($fresh));
?>
--EXPECTF--
true
true
Error: Cannot modify readonly property Realtime\Connection::$id
Error: Cannot modify readonly property Realtime\Connection::$query
Error: Cannot modify readonly property Realtime\Connection::$headers
Error: Cannot unset readonly property Realtime\Connection::$path
Error: Cannot create dynamic property Realtime\Connection::$colour

Warning: Undefined property: Realtime\Connection::$colour in %sconnection_basic.php on line %d
null
Error: Trying to clone an uncloneable object of class Realtime\Connection
Exception: Serialization of 'Realtime\Connection' is not allowed
Error: Call to private Realtime\Connection::__construct() from global scope
ReflectionException: Class Realtime\Connection is an internal class marked as final that cannot be instantiated without invoking its constructor
["id","transport","ip","path","query","headers","cookies","user","state"]
id transport ip path query headers cookies user state 
{"a":"1"}
"\/raw\/chat"
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('connection_basic');
?>
