--TEST--
phpinfo() shows version, state, address, counts and settings
--EXTENSIONS--
realtime
pcntl
posix
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-ini_info/hub.sock
realtime.threads=1
--FILE--
<?php
function info(): string
{
    ob_start();
    (new ReflectionExtension('realtime'))->info();
    return ob_get_clean();
}
preg_match_all('/^(version|server|address|control socket) => .*/m', info(), $lines);
echo implode("\n", $lines[0]), "\n";
rt_listen();
rt_broadcast('chat', 1);
preg_match_all('/^(server|address|connections|channels|messages published) => .*/m', info(), $lines);
echo implode("\n", $lines[0]), "\n";
[$shown, $known] = [substr_count(info(), "\nrealtime."), count(ini_get_all('realtime'))];
echo $shown === $known ? 'every setting is shown' : "$shown settings, $known known", "\n";
if (pcntl_fork() === 0) {
    preg_match_all('/^(server|address) => .*/m', info(), $lines);
    echo str_replace((string) posix_getppid(), 'PARENT', implode("\n", $lines[0])), "\n";
    exit;
}
pcntl_wait($status);
?>
--EXPECTF--
version => %d.%d.%d
server => not running
control socket => %s/realtime-phpt-ini_info/hub.sock
server => listening here
address => 127.0.0.1:%d
connections => 0
channels => 0
messages published => 1
every setting is shown
server => attached to pid PARENT
address => 127.0.0.1:%d
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('ini_info');
?>
