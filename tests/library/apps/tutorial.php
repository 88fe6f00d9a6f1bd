<?php
require 'ROOT/tests/library/interfaces/ratchet.php';
require 'ROOT/tests/library/autoload.php';
require 'ROOT/tests/library/apps/tutorial_chat.php';

(new Realtime\Ratchet\Server(new MyApp\Chat()))->run('127.0.0.1:8080');
