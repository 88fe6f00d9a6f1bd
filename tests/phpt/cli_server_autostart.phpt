--TEST--
php -S starts the server with the first request, once for all of its workers
--EXTENSIONS--
realtime
pcntl
posix
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-cli_server_autostart/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

// A free port each for php -S and for its realtime server.
[$web, $live] = [free_address(), free_address()];
$root = sys_get_temp_dir() . '/realtime-phpt-cli_server_autostart';
@mkdir($root, 0700);
file_put_contents("$root/index.php", '<?php
    $pid = getmypid();
    rt_broadcast("chat", "from a request");
    echo json_encode([rt_stats()["address"], rt_stats()["pid"] === $pid]);');
// In a session of its own, so that its workers end with it.
$command = ['setsid', PHP_BINARY, '-n', '-d', 'extension_dir=' . ini_get('extension_dir'), '-d', 'extension=realtime',
    '-d', "realtime.listen=$live", '-d', "realtime.socket=$root/web.sock", '-d', 'realtime.timeout=20', '-S', $web, '-t', $root];
$server = proc_open($command, [1 => ['file', '/dev/null', 'w'], 2 => ['file', '/dev/null', 'w']], $pipes, null,
    ['PHP_CLI_SERVER_WORKERS' => '3']);
$get = fn() => @file_get_contents("http://$web/");
$nothing = fn() => usleep(10000);
$first = wait_for($get, $nothing);
var_dump(json_decode($first)[0] === $live);
$socket = new Socket($live, '/raw/chat', [], $nothing);
$here = 0;
for ($i = 0; $i < 20; $i++) {
    $here += (int) json_decode($get())[1];
    echo $i % 10 ? '' : $socket->receive() . "\n";
}
// Not all are answered by the worker that has the server. Who takes a request is left to chance.
var_dump($here < 20 || wait_for(fn() => json_decode($get())[1] === false, $nothing));
posix_kill(-proc_get_status($server)['pid'], SIGKILL);
proc_close($server);
foreach (glob("$root/*") as $file) {
    unlink($file);
}
?>
--EXPECTF--
bool(true)
from a request
from a request
bool(true)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('cli_server_autostart');
?>
