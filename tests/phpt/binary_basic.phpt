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
--EXPECT--
TODO
