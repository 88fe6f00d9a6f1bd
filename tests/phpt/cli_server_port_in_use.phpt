--TEST--
php -S says once why its server cannot start, and rt_broadcast() says it too
--EXTENSIONS--
realtime
pcntl
posix
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-cli_server_port_in_use/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

// The name by which the system knows this process, whatever runs it.
file_put_contents('/proc/self/comm', 'the-holder');
$taken = stream_socket_server('tcp://127.0.0.1:0');
$live = stream_socket_get_name($taken, false);
$web = free_address();
$root = sys_get_temp_dir() . '/realtime-phpt-cli_server_port_in_use';
@mkdir($root, 0700);
file_put_contents("$root/index.php", '<?php
    try { rt_broadcast("chat", 1); } catch (Realtime\\Exception $e) { echo $e->getMessage(); }');
// In a session of its own, so that its workers end with it.
$command = ['setsid', PHP_BINARY, '-n', '-d', 'extension_dir=' . ini_get('extension_dir'), '-d', 'extension=realtime',
    '-d', "realtime.listen=$live", '-d', "realtime.socket=$root/web.sock", '-S', $web, '-t', $root];
$server = proc_open($command, [1 => ['file', '/dev/null', 'w'], 2 => ['file', "$root/log", 'w']], $pipes);
$tell = fn($text) => str_replace([$live, (string) getmypid()], ['ADDRESS', 'PID'], $text);
echo $tell(wait_for(fn() => @file_get_contents("http://$web/"), fn() => usleep(10000))), "\n";
file_get_contents("http://$web/");
posix_kill(-proc_get_status($server)['pid'], SIGKILL);
proc_close($server);
preg_match_all('/realtime cannot.*/', file_get_contents("$root/log"), $lines);
echo $tell(implode("\n", $lines[0])), "\n";
foreach (glob("$root/*") as $file) {
    unlink($file);
}
?>
--EXPECTF--
cannot listen on ADDRESS (realtime.listen): it is taken by process PID (the-holder)
realtime cannot start its server: cannot listen on ADDRESS (realtime.listen): it is taken by process PID (the-holder)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('cli_server_port_in_use');
?>
