--TEST--
a setting that is out of bounds is named, and its default stays
--EXTENSIONS--
realtime
--INI--
realtime.listen=nowhere
realtime.socket={TMP}/realtime-phpt-ini_invalid/hub.sock
realtime.threads=1
realtime.max_backlog=12
realtime.ping_interval=30
--FILE--
<?php
var_dump(ini_get('realtime.max_backlog'), ini_get('realtime.listen'), ini_get('realtime.ping_interval'));
var_dump(ini_set('realtime.ping_interval', '5'));
?>
--EXPECTF--
Warning: PHP Startup: realtime.listen must be host:port, [ipv6]:port or unix:/path, "nowhere" given; "127.0.0.1:8080" stays in Unknown on line 0

Warning: PHP Startup: realtime.max_backlog must be 1K to 1G, "12" given; "1M" stays in Unknown on line 0
string(2) "1M"
string(14) "127.0.0.1:8080"
string(2) "30"
bool(false)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('ini_invalid');
?>
