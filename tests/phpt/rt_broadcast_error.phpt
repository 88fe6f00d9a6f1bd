--TEST--
rt_broadcast() says what is wrong with an argument
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_broadcast_error/hub.sock
realtime.threads=1
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

rt_listen();
attempt(fn() => rt_broadcast('', 1));
attempt(fn() => rt_broadcast('two words', 1));
attempt(fn() => rt_broadcast(str_repeat('x', 201), 1));
attempt(fn() => rt_broadcast("\xff", 1));
attempt(fn() => rt_broadcast([], 1));
attempt(fn() => rt_broadcast(['a', 'b c'], 1));
attempt(fn() => rt_broadcast(['a', 5], 1));
attempt(fn() => rt_broadcast(array_fill(0, 1001, 'x'), 1));
attempt(fn() => rt_broadcast('a', 1, event: ''));
attempt(fn() => rt_broadcast('a', 1, event: "two\nlines"));
attempt(fn() => rt_broadcast('a', 1, except: 'me'));
attempt(fn() => rt_broadcast('a', 1, id: 'with space'));
attempt(fn() => rt_broadcast('a', 1, id: ''));
attempt(fn() => rt_broadcast('a'));
attempt(fn() => rt_broadcast('a', 1, colour: 'red'));
attempt(fn() => rt_broadcast(new stdClass, 1));
attempt(fn() => rt_broadcast('a', str_repeat('x', 70000)));
attempt(fn() => count(rt_history('a')));
?>
--EXPECTF--
ValueError: rt_broadcast(): Argument #1 ($channel) must be a channel name of 1 to 200 bytes, 0 given
ValueError: rt_broadcast(): Argument #1 ($channel) must be a channel name of letters, digits and _ - = @ , . ; : / ? & # % + ~ ! $ ( ) [ ] that does not begin with #, found ' '
ValueError: rt_broadcast(): Argument #1 ($channel) must be a channel name of 1 to 200 bytes, 201 given
ValueError: rt_broadcast(): Argument #1 ($channel) must be a channel name of letters, digits and _ - = @ , . ; : / ? & # % + ~ ! $ ( ) [ ] that does not begin with #, found '%s'
ValueError: rt_broadcast(): Argument #1 ($channel) must have 1 to 1000 channels, 0 given
ValueError: rt_broadcast(): Argument #1 ($channel) must be a channel name of letters, digits and _ - = @ , . ; : / ? & # % + ~ ! $ ( ) [ ] that does not begin with #, found ' '
TypeError: rt_broadcast(): Argument #1 ($channel) must be of type array|string with strings only in the array
ValueError: rt_broadcast(): Argument #1 ($channel) must have 1 to 1000 channels, 1001 given
ValueError: rt_broadcast(): Argument #3 ($event) must be 1 to 200 bytes without control characters
ValueError: rt_broadcast(): Argument #3 ($event) must be 1 to 200 bytes without control characters
ValueError: rt_broadcast(): Argument #4 ($except) must be a connection id, which is 32 hexadecimal digits
ValueError: rt_broadcast(): Argument #5 ($id) must be 1 to 128 bytes of printable ASCII without spaces
ValueError: rt_broadcast(): Argument #5 ($id) must be 1 to 128 bytes of printable ASCII without spaces
ArgumentCountError: rt_broadcast() expects at least 2 arguments, 1 given
Error: Unknown named parameter $colour
TypeError: rt_broadcast(): Argument #1 ($channel) must be of type array|string, stdClass given
Realtime\Exception: the message has 70002 bytes, realtime.max_message_size allows 65536
0
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_broadcast_error');
?>
