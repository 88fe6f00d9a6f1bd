--TEST--
rt_pusher_auth() signs as Pusher's documentation shows
--EXTENSIONS--
realtime
--INI--
realtime.socket={TMP}/realtime-phpt-rt_pusher_auth_basic/hub.sock
realtime.pusher_app="3:278d425bdf160c739803:7ad3773142a6692b25b8, other:key:0123456789abcdef"
realtime.pusher_master_key="BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
--FILE--
<?php
function show(array $answer): void
{
    foreach ($answer as $name => $value) {
        echo "$name: $value\n";
    }
}
show(rt_pusher_auth('1234.1234', 'private-foobar'));
show(rt_pusher_auth('1234.1234', 'presence-foobar', ['user_id' => 10, 'user_info' => ['name' => 'Mr. Channels']]));
show(rt_pusher_auth('1234.1234', '', ['id' => '12345']));
show($encrypted = rt_pusher_auth('1234.1234', 'private-encrypted-x', null));
var_dump($encrypted['shared_secret'] === base64_encode(hash('sha256', 'private-encrypted-x' . str_repeat("\x07", 32), true)));
// Only presence channels have members.
var_dump(array_keys(rt_pusher_auth('1.2', 'private-x', ['user_id' => 1])));

ob_start();
phpinfo(INFO_MODULES | INFO_CONFIGURATION);
$info = ob_get_clean();
preg_match_all('/^realtime\.pusher_(?:app|master_key).*/m', $info, $lines);
echo implode("\n", array_unique($lines[0])), "\n";
var_dump(str_contains($info, '7ad3773142a6692b25b8'));
?>
--EXPECT--
auth: 278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4
auth: 278d425bdf160c739803:31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80
channel_data: {"user_id":10,"user_info":{"name":"Mr. Channels"}}
auth: 278d425bdf160c739803:4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba
user_data: {"id":"12345"}
auth: 278d425bdf160c739803:573f86f8d5959ba8070392e04ba3e4f28491b5a7e2c4298ccbb2291d336d2903
shared_secret: QBLmxUha0AEqZM0+A5PNJXDxZBx3jy3Nx0o1EY1y36I=
bool(true)
array(1) {
  [0]=>
  string(4) "auth"
}
realtime.pusher_app => set, and not shown => set, and not shown
realtime.pusher_master_key => set, and not shown => set, and not shown
bool(false)
