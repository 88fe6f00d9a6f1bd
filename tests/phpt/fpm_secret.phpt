--TEST--
a pool's own secrets are used, and not shown
--EXTENSIONS--
realtime
posix
--SKIPIF--
<?php
require __DIR__ . '/fpm.inc';
fpm_binary() or die('skip no php-fpm of this version');
?>
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-fpm_secret/hub.sock
realtime.threads=1
realtime.timeout=20
realtime.linger=0
realtime.secret="first secret of realtime.secret that is long enough"
realtime.pusher_webhook="http://webhook-user:webhook-password@127.0.0.1:1/hook"
--FILE--
<?php
require __DIR__ . '/client.inc';
require __DIR__ . '/secrets.inc';
require __DIR__ . '/fpm.inc';
$pool = new Pool('fpm_secret', __DIR__ . '/fpm_secret.inc', 1, 'php_admin_value[realtime.secret]="' . SECRETS[1] . "\"\n"
    . "php_admin_value[realtime.pusher_app]=1:one:" . SECRETS[2] . "\n");
// The second request of a worker, too.
foreach ([1, 2] as $_) {
    echo $pool->request(__DIR__ . '/fpm_secret.inc');
}
$pool->stop();
?>
--EXPECTF--
%Aphpinfo(): none
the extension: none
ini_get_all(): none
INI entries: none
ini_get(): none
signed with the pool's: true
%Aphpinfo(): none
the extension: none
ini_get_all(): none
INI entries: none
ini_get(): none
signed with the pool's: true
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('fpm_secret');
?>
