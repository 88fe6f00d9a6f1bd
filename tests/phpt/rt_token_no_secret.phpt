--TEST--
rt_token() without a secret says which setting is missing; a short one is refused and not shown
--EXTENSIONS--
realtime
--INI--
realtime.secret=too-short-to-be-one
--FILE--
<?php
try {
    rt_token(['sub' => 'me']);
} catch (Realtime\Exception $e) {
    echo $e->getMessage(), "\n";
}
?>
--EXPECT--
Warning: PHP Startup: realtime.secret must be a secret of at least 32 bytes of text, or a comma-separated list of them, of which the first signs; or empty, "19 bytes that are not shown" given; "" stays in Unknown on line 0
there is no secret to sign tokens with: set realtime.secret to at least 32 random bytes, the same for the server and for every PHP process (`openssl rand -hex 32` makes one)
