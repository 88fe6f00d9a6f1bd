--TEST--
rt_update() of another process goes through the control socket with all its terms
--EXTENSIONS--
realtime
pcntl
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_update_process/hub.sock
realtime.threads=1
realtime.timeout=20
realtime.mercure_publisher_key="a-secret-of-at-least-32-bytes-of-text"
realtime.mercure_subscriber_key="a-secret-of-at-least-32-bytes-of-text"
realtime.mercure_anonymous=1
--FILE--
<?php
require __DIR__ . '/client.inc';
require __DIR__ . '/mercure.inc';

// Forked before there is a server: this child knows nothing of it.
[$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
if (pcntl_fork() === 0) {
    fread($theirs, 1);
    $id = rt_update(['c', 'a', 'b'], '{"secret":1}', private: true, type: 'paid', retry: 900);
    rt_update('a', 'open');
    fwrite($theirs, $id);
    exit;
}
$address = rt_listen();
// Of its topics the token covers one, and the stream is of the others.
$ann = new Updates($address, ['a', 'b'], ['c']);
$anonymous = new Updates($address, ['a', 'b']);
fwrite($ours, 'x');
$update = $ann->next();
var_dump($update['id'] === fread($ours, 100));
unset($update['id']);
echo json_encode($update), "\n", $ann->next()['data'], "\n", $anonymous->next()['data'], "\n";
?>
--EXPECT--
bool(true)
{"event":"paid","retry":"900","data":"{\"secret\":1}"}
open
open
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_update_process');
?>
