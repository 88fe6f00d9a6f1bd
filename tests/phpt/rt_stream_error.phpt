--TEST--
rt_stream() needs a server in this process
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_stream_error/hub.sock
realtime.threads=1
--FILE--
<?php
try {
    rt_stream();
} catch (Realtime\Exception $e) {
    echo $e->getMessage(), "\n";
}
?>
--EXPECTF--
no server runs in this process: call rt_listen() before rt_stream()
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_stream_error');
?>
