<?php
require 'ROOT/tests/library/interfaces/ratchet.php';
require 'ROOT/tests/library/autoload.php';
require 'GuzzleHttp/Psr7/autoload.php';
require 'ROOT/tests/library/apps/chat.php';

(new Realtime\Ratchet\Server(new MyApp\Chat(), 'chat'))->run('127.0.0.1:8080');
