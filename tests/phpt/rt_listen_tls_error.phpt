--TEST--
rt_listen() says what is wrong with the files of realtime.tls_cert and realtime.tls_key
--EXTENSIONS--
realtime
openssl
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_listen_tls_error/hub.sock
realtime.tls_cert={TMP}/realtime-phpt-rt_listen_tls_error/cert.pem
realtime.tls_key={TMP}/realtime-phpt-rt_listen_tls_error/key.pem
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/tls.inc';
[$cert, $key] = [ini_get('realtime.tls_cert'), ini_get('realtime.tls_key')];

function attempt(string $what): void
{
    try {
        rt_listen();
        echo "$what: listens\n";
    } catch (Realtime\Exception $e) {
        echo "$what: ", str_replace(dirname(ini_get('realtime.tls_cert')), '', $e->getMessage()), "\n";
    }
}

attempt('no files');
certificate($cert, $key);
unlink($key);
attempt('no key');
file_put_contents($key, 'nonsense');
attempt('nonsense');
certificate("$cert.other", $key);
attempt('of another');
openssl_pkey_export_to_file(openssl_pkey_new(), $key, 'passphrase');
attempt('encrypted');
certificate($cert, $key);
attempt('right');
?>
--EXPECTF--
no files: cannot take the certificate in /cert.pem (realtime.tls_cert): No such file or directory (os error 2)
no key: cannot take the private key in /key.pem (realtime.tls_key): No such file or directory (os error 2)
nonsense: cannot take the private key in /key.pem (realtime.tls_key): it has no private key in PEM (-----BEGIN PRIVATE KEY-----)
of another: the private key in /key.pem (realtime.tls_key) is not that of the first certificate in /cert.pem (realtime.tls_cert)
encrypted: cannot take the private key in /key.pem (realtime.tls_key): it is encrypted, and nobody is there to type its passphrase: `openssl pkey` takes it away
right: listens
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_listen_tls_error');
?>
