--TEST--
rt_close() and Connection::close() end a connection with a code and a reason
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_close_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

$address = rt_listen();
$closed = 0;
rt_on_close(function ($c, $code, $reason) use (&$closed) {
    echo "closed {$c->query['n']} $code $reason\n";
    $closed++;
});
$close = [
    fn($c) => rt_close($c->id),
    fn($c) => rt_close($c->id, 4001, 'enough'),
    fn($c) => $c->close(),
    fn($c) => $c->close(3000, 'by method'),
];
foreach ($close as $n => $call) {
    $socket = new Socket($address, "/raw/chat?n=$n");
    var_dump($call(rt_connections()[0]));
    echo $socket->receive(), "\n";
    $socket->send("\x03\xe8", 8);
    // Its handler may run a little before it has gone, or after.
    wait_for(function () use (&$closed, $n) { return $closed > $n && !rt_connections(); });
}
var_dump(rt_close(str_repeat('0', 32)));
?>
--EXPECTF--
bool(true)
close 1000
closed 0 1000%S
bool(true)
close 4001 enough
closed 1 4001 enough
bool(true)
close 1000
closed 2 1000%S
bool(true)
close 3000 by method
closed 3 3000 by method
bool(false)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_close_basic');
?>
