--TEST--
rt_token() says what is wrong with its arguments
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_token_error/hub.sock
realtime.secret=a-secret-of-the-tests-that-is-long-enough
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

attempt(fn() => rt_token([]));
attempt(fn() => rt_token('me'));
attempt(fn() => rt_token(['me']));
attempt(fn() => rt_token(['sub' => ['me']]));
attempt(fn() => rt_token(['sub' => '']));
attempt(fn() => rt_token(['channels' => ['no spaces']]));
attempt(fn() => rt_token(['publish' => 7]));
attempt(fn() => rt_token(['exp' => time() + 60]));
attempt(fn() => rt_token(['info' => NAN]));
attempt(fn() => rt_token(['info' => str_repeat('x', 10000)]));
attempt(fn() => rt_token([], 0));
attempt(fn() => rt_token([], 86401));
attempt(fn() => rt_token([], -1));
// Which of their own they have does not matter to the server.
attempt(fn() => rt_token(['nbf' => time(), 'iss' => 'me', 'jti' => 1.5]));
?>
--EXPECTF--
string
TypeError: rt_token(): Argument #1 ($claims) must be of type array, string given
ValueError: rt_token(): Argument #1 ($claims) must be an array of claims by name
ValueError: rt_token(): Argument #1 ($claims) must be valid claims: "sub" must be a string or an integer
ValueError: rt_token(): Argument #1 ($claims) must be valid claims: "sub" must be 1 to 200 bytes without control characters
ValueError: rt_token(): Argument #1 ($claims) must be valid claims: each of "channels" must be a channel name of letters, digits and _ - = @ , . ; : / ? & # % + ~ ! $ ( ) [ ] that does not begin with #, found ' '
ValueError: rt_token(): Argument #1 ($claims) must be valid claims: "channels" and "publish" must be lists of patterns
ValueError: rt_token(): Argument #1 ($claims) must not have "exp": $ttl and realtime.token_audience say it
ValueError: rt_token(): Argument #1 ($claims) must be JSON-encodable: Inf and NaN cannot be JSON encoded
ValueError: rt_token(): Argument #1 ($claims) must make a token of at most 8192 bytes, %d are too many
ValueError: rt_token(): Argument #2 ($ttl) must be 1 to 86400 (realtime.max_token_ttl), 0 given
ValueError: rt_token(): Argument #2 ($ttl) must be 1 to 86400 (realtime.max_token_ttl), 86401 given
ValueError: rt_token(): Argument #2 ($ttl) must be 1 to 86400 (realtime.max_token_ttl), -1 given
string
