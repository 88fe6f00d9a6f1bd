--TEST--
rt_broadcast() to a cache channel: its newest message comes to every new subscriber
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_broadcast_cache/hub.sock
realtime.threads=1
realtime.history_size=0
realtime.cache_channels=state.*
--FILE--
<?php
require __DIR__ . '/client.inc';

$address = rt_listen();
foreach (['cache-a', 'state.1', 'chat'] as $channel) {
    rt_broadcast($channel, 'old');
    rt_broadcast($channel, ['now' => $channel], 'changed');
    rt_broadcast($channel, 'passing', store: false);
    $socket = new Socket($address, '/ws');
    $socket->receive();
    $socket->send("{\"type\":\"subscribe\",\"channel\":\"$channel\"}");
    echo $socket->frame(), "\n";
    rt_broadcast($channel, 'next');
    foreach ($channel === 'chat' ? [1] : [1, 2] as $_) {
        echo $socket->frame(), "\n";
    }
}
?>
--EXPECT--
{"type":"subscribed","channel":"cache-a","id":"*","cached":true}
{"type":"message","channel":"cache-a","event":"changed","id":"*","data":{"now":"cache-a"}}
{"type":"message","channel":"cache-a","event":"message","id":"*","data":"next"}
{"type":"subscribed","channel":"state.1","id":"*","cached":true}
{"type":"message","channel":"state.1","event":"changed","id":"*","data":{"now":"state.1"}}
{"type":"message","channel":"state.1","event":"message","id":"*","data":"next"}
{"type":"subscribed","channel":"chat","id":"*"}
{"type":"message","channel":"chat","event":"message","id":"*","data":"next"}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_broadcast_cache');
?>
