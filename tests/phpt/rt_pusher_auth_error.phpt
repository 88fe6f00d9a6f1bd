--TEST--
rt_pusher_auth() says what is wrong with its arguments, and with the settings
--EXTENSIONS--
realtime
--INI--
realtime.socket={TMP}/realtime-phpt-rt_pusher_auth_error/hub.sock
realtime.pusher_app=3:key:0123456789abcdef
--FILE--
<?php
function attempt(callable $call): void
{
    try {
        echo gettype($call()), "\n";
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}

foreach (['', '1', '1.', 'a.b', '1.2.3', "1.2\n", '1.2:private-y'] as $id) {
    attempt(fn() => rt_pusher_auth($id, 'private-x'));
}
attempt(fn() => rt_pusher_auth('1.2', 'open'));
attempt(fn() => rt_pusher_auth('1.2', 'private-a b'));
attempt(fn() => rt_pusher_auth('1.2', 'presence-x'));
attempt(fn() => rt_pusher_auth('1.2', 'presence-x', ['id' => 1]));
attempt(fn() => rt_pusher_auth('1.2', 'presence-x', ['user_id' => '']));
attempt(fn() => rt_pusher_auth('1.2', 'presence-x', ['user_id' => NAN]));
attempt(fn() => rt_pusher_auth('1.2', ''));
attempt(fn() => rt_pusher_auth('1.2', '', ['user_id' => 1]));
attempt(fn() => rt_pusher_auth('1.2', 'private-encrypted-x'));
attempt(fn() => rt_pusher_auth('1.2', 'private-x', 'me'));
passthru(PHP_BINARY . ' -n -d extension=' . escapeshellarg(ini_get('extension_dir') . '/realtime.so')
    . ' -r ' . escapeshellarg('try { rt_pusher_auth("1.2", "private-x"); } catch (Realtime\Exception $e) { echo $e->getMessage(), "\n"; }'));
?>
--EXPECT--
ValueError: rt_pusher_auth(): Argument #1 ($socket_id) must be a socket_id, which is two numbers and a dot between them
ValueError: rt_pusher_auth(): Argument #1 ($socket_id) must be a socket_id, which is two numbers and a dot between them
ValueError: rt_pusher_auth(): Argument #1 ($socket_id) must be a socket_id, which is two numbers and a dot between them
ValueError: rt_pusher_auth(): Argument #1 ($socket_id) must be a socket_id, which is two numbers and a dot between them
ValueError: rt_pusher_auth(): Argument #1 ($socket_id) must be a socket_id, which is two numbers and a dot between them
ValueError: rt_pusher_auth(): Argument #1 ($socket_id) must be a socket_id, which is two numbers and a dot between them
ValueError: rt_pusher_auth(): Argument #1 ($socket_id) must be a socket_id, which is two numbers and a dot between them
ValueError: rt_pusher_auth(): Argument #2 ($channel) must be a private- or presence- channel, or empty: others need no signature
ValueError: rt_pusher_auth(): Argument #2 ($channel) must be a channel name of letters, digits and _ - = @ , . ; : / ? & # % + ~ ! $ ( ) [ ] that does not begin with #, found ' '
ValueError: rt_pusher_auth(): Argument #3 ($user) must have a "user_id", a string or an integer, for a presence- channel
ValueError: rt_pusher_auth(): Argument #3 ($user) must have a "user_id", a string or an integer, for a presence- channel
ValueError: rt_pusher_auth(): Argument #3 ($user) must have a "user_id", a string or an integer, for a presence- channel
ValueError: rt_pusher_auth(): Argument #3 ($user) must be JSON-encodable: Inf and NaN cannot be JSON encoded
ValueError: rt_pusher_auth(): Argument #3 ($user) must have an "id", a string or an integer, when no channel is given
ValueError: rt_pusher_auth(): Argument #3 ($user) must have an "id", a string or an integer, when no channel is given
Realtime\Exception: there is no key for private-encrypted- channels: set realtime.pusher_master_key to 32 random bytes in base64 (`openssl rand -base64 32` makes one)
TypeError: rt_pusher_auth(): Argument #3 ($user) must be of type ?array, string given
there is no app to sign with: set realtime.pusher_app to id:key:secret, the same for the server and every PHP process
