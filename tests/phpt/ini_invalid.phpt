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
--EXPECT--
TODO
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('ini_invalid');
?>
