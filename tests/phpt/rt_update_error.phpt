--TEST--
rt_update() says what is wrong with an argument
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_update_error/hub.sock
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

attempt(fn() => rt_update('a'));
rt_listen();
attempt(fn() => rt_update(''));
attempt(fn() => rt_update(str_repeat('x', 201)));
attempt(fn() => rt_update(['https://shop.example/1', 'https://shop.example/{id}']));
attempt(fn() => rt_update("\xff"));
attempt(fn() => rt_update([]));
attempt(fn() => rt_update(['a', 5]));
attempt(fn() => rt_update(array_fill(0, 1001, 'x')));
attempt(fn() => rt_update(['a', 'https://any.example/.well-known/mercure/subscriptions/a/b']));
attempt(fn() => rt_update('a', "\xff"));
attempt(fn() => rt_update('a', ['no', 'text']));
attempt(fn() => rt_update('a', id: 'with space'));
attempt(fn() => rt_update('a', id: '#1'));
attempt(fn() => rt_update('a', type: "two\nlines"));
attempt(fn() => rt_update('a', type: 'realtime.join'));
attempt(fn() => rt_update('a', retry: -1));
attempt(fn() => rt_update('a', retry: 'soon'));
attempt(fn() => rt_update());
attempt(fn() => rt_update('a', colour: 'red'));
attempt(fn() => rt_update(new stdClass));
attempt(fn() => rt_update('a', str_repeat('x', 70000), private: true));
attempt(fn() => count(rt_history('a')));
?>
--EXPECTF--
Realtime\Exception: %s
ValueError: rt_update(): Argument #1 ($topics) must be a channel name of 1 to 200 bytes, 0 given
ValueError: rt_update(): Argument #1 ($topics) must be a channel name of 1 to 200 bytes, 201 given
ValueError: rt_update(): Argument #1 ($topics) must be a channel name of letters, digits and _ - = @ , . ; : / ? & # % + ~ ! $ ( ) [ ] that does not begin with #, found '{' in "https://shop.example/{id}"
ValueError: rt_update(): Argument #1 ($topics) must be valid UTF-8
ValueError: rt_update(): Argument #1 ($topics) must have 1 to 1000 topics, 0 given
TypeError: rt_update(): Argument #1 ($topics) must be of type array|string with strings only in the array
ValueError: rt_update(): Argument #1 ($topics) must have 1 to 1000 topics, 1001 given
ValueError: rt_update(): Argument #1 ($topics) must not name the hub's own topics, "https://any.example/.well-known/mercure/subscriptions/a/b" given
ValueError: rt_update(): Argument #2 ($data) must be valid UTF-8
TypeError: rt_update(): Argument #2 ($data) must be of type string, array given
ValueError: rt_update(): Argument #4 ($id) must be 1 to 128 bytes of printable ASCII without spaces
ValueError: rt_update(): Argument #4 ($id) must not begin with # or be "earliest"
ValueError: rt_update(): Argument #5 ($type) must be 1 to 200 bytes without control characters
ValueError: rt_update(): Argument #5 ($type) must not begin with "realtime.", "pusher:" or "pusher_internal:", as the server's own events do
ValueError: rt_update(): Argument #6 ($retry) must be 0 or more milliseconds
TypeError: rt_update(): Argument #6 ($retry) must be of type ?int, string given
ArgumentCountError: rt_update() expects at least 1 argument, 0 given
Error: Unknown named parameter $colour
TypeError: rt_update(): Argument #1 ($topics) must be of type array|string, stdClass given
Realtime\Exception: the message has 70002 bytes, realtime.max_message_size allows 65536
0
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_update_error');
?>
