--TEST--
Realtime\Binary holds bytes
--EXTENSIONS--
realtime
--INI--
--FILE--
<?php
function attempt(callable $call): void
{
    try {
        echo json_encode($call()), "\n";
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}

$binary = new Realtime\Binary("\x00\xff");
var_dump(bin2hex($binary->bytes), bin2hex($binary), $binary instanceof Stringable);
var_dump($binary == new Realtime\Binary("\x00\xff"), unserialize(serialize($binary)) == $binary, clone $binary == $binary);
attempt(fn() => $binary->bytes = 'x');
attempt(fn() => $binary->other = 'x');
attempt(fn() => $binary->__construct('x'));
attempt(fn() => new Realtime\Binary);
attempt(fn() => new Realtime\Binary([]));
?>
--EXPECTF--
string(4) "00ff"
string(4) "00ff"
bool(true)
bool(true)
bool(true)
bool(true)
Error: Cannot modify readonly property Realtime\Binary::$bytes
Error: Cannot create dynamic property Realtime\Binary::$other
Error: Cannot modify readonly property Realtime\Binary::$bytes
ArgumentCountError: Realtime\Binary::__construct() expects exactly 1 argument, 0 given
TypeError: Realtime\Binary::__construct(): Argument #1 ($bytes) must be of type string, array given
