<?php
/**
 * What each code block must do, by its name (see blocks.php), as a client or an operator sees it.
 */
declare(strict_types=1);

/** Starts a block's program and waits until it serves. */
$serve = function (Block $block, Lab $lab): Program {
    $program = $lab->php($block->code, $block->file ?? 'block.php', '-d', "realtime.listen=127.0.0.1:$lab->port");
    $lab->ready($program);
    return $program;
};

/** Runs a JavaScript block in a browser, on a page of the block's own server. */
$browse = function (Block $block, Lab $lab) use ($serve): Program {
    $lab->write('public/script.html', "<!doctype html><script type=\"module\">\n$block->code</script>\n");
    $chat = $lab->php(
        file_get_contents("$lab->directory/chat.php"),
        'chat.php',
        '-d',
        "realtime.listen=127.0.0.1:$lab->port",
        '-d',
        "realtime.docroot=$lab->directory/public",
    );
    $lab->ready($chat);
    return $chat;
};

$secret = 'realtime.secret=' . bin2hex(random_bytes(32));

/** That two things are the same. */
function equal(mixed $expected, mixed $given): void
{
    if ($expected !== $given) {
        throw new Exception('expected ' . json_encode($expected) . ', got ' . json_encode($given));
    }
}

return [
    'README.md#realtime sh' => function (Block $block, Lab $lab): void {
        // Here nothing is installed but into a directory of ours, and the demo takes our port.
        $project = escapeshellarg($lab->root);
        $arguments = escapeshellarg("-d realtime.listen=127.0.0.1:$lab->port -d realtime.socket=$lab->directory/hub.sock");
        $commands = array_filter(explode("\n", preg_replace('~\s*#.*~', '', $block->code)));
        // `make test` is what runs this.
        equal(['make demo', 'make test'], array_values($commands));

        $demo = $lab->shell("exec make -C $project demo PHP_ARGS=$arguments");
        $lab->ready($demo);
        [$status, $page] = request($lab->port, '/');
        equal(200, $status);
        equal(true, str_contains($page, '<script'));
        $lab->tidy();

        $printed = $lab->shell("make -C $project install DESTDIR=$lab->directory/installed")->ends();
        equal(true, str_contains($printed, 'extension=realtime.so'));
        $found = glob("$lab->directory/installed" . ini_get('extension_dir') . '/realtime.so');
        equal(1, count($found));
    },

    'README.md#first-push php' => function (Block $block, Lab $lab) use ($serve): void {
        $clock = $serve($block, $lab);
        $event = (new Events($lab->port, '/sse?channel=clock'))->next();
        equal(1, preg_match('~^"\d\d:\d\d:\d\d"$~', $event['data']));
        $clock->stop();
    },

    // The page is looked at under the command that serves it, below.
    'README.md#first-push html' => fn (Block $block) => equal('public/index.html', $block->file),

    'README.md#first-push sh' => function (Block $block, Lab $lab): void {
        $watched = file_get_contents("$lab->directory/public/index.html") . <<<'HTML'
            <script>
            new MutationObserver(() => console.log('the page shows ' + document.body.innerText))
                .observe(document.body, { childList: true, subtree: true });
            </script>
            HTML;
        $lab->write('public/index.html', $watched);
        $clock = $lab->shell($block->code);
        $lab->ready($clock);
        $page = $lab->browse('/');
        $page->matches('~the page shows \d\d:\d\d:\d\d~');
        $clock->stop();
    },

    'README.md#first-push sh 2' => function (Block $block, Lab $lab): void {
        $clock = $lab->php(file_get_contents("$lab->directory/clock.php"), 'clock.php');
        $lab->ready($clock);
        $events = new Events($lab->port, '/sse?channel=clock');
        $events->next();
        $lab->shell($block->code)->ends();
        for ($tries = 0; ($data = $events->next()['data']) !== '"time for tea"'; $tries++) {
            $tries < 60 || throw new Exception("the push did not come, but this: $data");
        }
        $clock->stop();
    },

    'README.md#what-clients-send php' => function (Block $block, Lab $lab) use ($serve): void {
        $chat = $serve($block, $lab);
        $author = new Socket($lab->port, '/raw/chat');
        $reader = new Socket($lab->port, '/raw/chat');
        $author->send('hello');
        equal('hello', $reader->receive());
        equal(true, $author->silent(0.3));
        $chat->stop();
    },

    'README.md#what-clients-send js' => function (Block $block, Lab $lab) use ($browse): void {
        $chat = $browse($block, $lab);
        $other = new Socket($lab->port, '/raw/chat');
        $page = $lab->browse('/script.html');
        equal('hello', $other->receive());
        $other->send('hello, browser');
        $page->prints('hello, browser');
        $chat->stop();
    },

    'README.md#what-clients-send js 2' => function (Block $block, Lab $lab) use ($browse): void {
        $chat = $browse($block, $lab);
        $other = new Socket($lab->port, '/ws');
        $other->send('{"type":"subscribe","channel":"chat"}');
        $other->frame('subscribed');
        $page = $lab->browse('/script.html');
        equal('hello', $other->frame('message')['data']);
        $other->send('{"type":"publish","channel":"chat","data":"hello, browser"}');
        $page->prints('hello, browser');
        $chat->stop();
    },

    // These need nginx and PHP-FPM: tests/servers/readme.test.mjs takes them from the page and runs them there.
    'README.md#with-nginx-and-php-fpm ini' => fn (Block $block) => equal("extension=realtime.so\n", $block->code),
    'README.md#with-nginx-and-php-fpm nginx' => fn (Block $block) => equal("include snippets/realtime.conf;\n", $block->code),

    'README.md#transports sh' => function (Block $block, Lab $lab): void {
        $clock = $lab->php(file_get_contents("$lab->directory/clock.php"), 'clock.php');
        $lab->ready($clock);
        $answer = json_decode($lab->shell($block->code)->ends(), true);
        equal('clock', $answer['messages'][0]['channel'] ?? $answer);
        equal('string', gettype($answer['cursor']));
        $clock->stop();
    },

    'README.md#install ini' => function (Block $block, Lab $lab): void {
        file_put_contents("$lab->directory/php.ini", $block->code);
        $printed = $lab->shell(
            "php -n -c $lab->directory/php.ini -d extension_dir=$lab->directory/modules --ri realtime"
        )->ends();
        equal(true, str_contains($printed, 'realtime.listen => 127.0.0.1:8080'));
    },

    'php/docs/api.md#listen-to-clients php' => function (Block $block, Lab $lab) use ($serve): void {
        $chat = $serve($block, $lab);
        $author = new Socket($lab->port, '/raw/chat');
        $reader = new Socket($lab->port, '/raw/chat');
        $author->send('hello');
        equal('hello', $reader->receive());
        $author->send('');
        $chat->prints('failed: nothing said');
        $author->close();
        $chat->prints('gone with 1000');
        equal(2, substr_count($chat->stop(), ' came from 127.0.0.1'));
    },

    'php/docs/api.md#channels-for-some-only php' => function (Block $block, Lab $lab) use ($serve): void {
        $server = $serve($block, $lab);
        $subscribe = '{"type":"subscribe","channel":"private-a"}';
        $stranger = new Socket($lab->port, '/ws');
        $stranger->send($subscribe);
        equal('forbidden', $stranger->frame('error')['code']);
        $stranger->send('{"type":"subscribe","channel":"public"}');
        $stranger->frame('subscribed');
        $friend = new Socket($lab->port, '/ws?pass=let-me-in');
        $friend->send($subscribe);
        $friend->frame('subscribed');
        $server->stop();
    },

    'php/docs/api.md#tokens php' => function (Block $block, Lab $lab) use ($secret): void {
        $lab->write('public/token.json', $lab->php($block->code, 'token.php', '-d', $secret)->ends());
    },

    // The page gets the token that the block before has made.
    'php/docs/api.md#tokens js' => function (Block $block, Lab $lab) use ($secret): void {
        $code = str_replace('/token.php', '/token.json', $block->code, $count);
        equal(1, $count);
        $script = "import { Realtime } from '/realtime.js';\n$code" . <<<'JS'
            rt.subscribe('private-room.1', said => console.log('heard ' + said)).ready.then(() => console.log('subscribed'));
            JS;
        $lab->write('public/script.html', "<!doctype html><script type=\"module\">\n$script</script>\n");
        $server = $lab->php('<?php rt_run();', 'block.php', '-d', $secret, '-d', "realtime.listen=127.0.0.1:$lab->port",
            '-d', "realtime.docroot=$lab->directory/public");
        $lab->ready($server);
        $page = $lab->browse('/script.html');
        $page->prints('subscribed');
        $code = 'rt_broadcast("private-room.1", "you alone"); echo rt_connections()[0]->user;';
        equal('42', $lab->php("<?php $code", 'push.php')->ends());
        $page->prints('heard you alone');
        $stranger = new Socket($lab->port, '/ws');
        $stranger->send('{"type":"subscribe","channel":"private-room.1"}');
        equal('forbidden', $stranger->frame('error')['code']);
        $server->stop();
    },

    'php/docs/api.md#answer php' => function (Block $block, Lab $lab) use ($serve): void {
        $server = $serve($block, $lab);
        [$status, $answer] = request($lab->port, '/publish', '{"channel":"math.add","data":[1,2,3]}');
        equal([200, ['sum' => 6]], [$status, json_decode($answer, true)['data'] ?? $answer]);
        $socket = new Socket($lab->port, '/ws');
        $socket->send('{"type":"publish","channel":"math.add","data":[4,5],"ref":1}');
        equal(['sum' => 9], $socket->frame('reply')['data']);
        $server->stop();
    },

    'php/docs/api.md#one-connection php' => function (Block $block, Lab $lab) use ($serve): void {
        $server = $serve($block, $lab);
        $socket = new Socket($lab->port, '/ws');
        $id = $socket->frame('welcome')['connection'];
        equal(32, strlen($id));
        $socket->send('{"type":"publish","channel":"me","data":"follow"}');
        equal('news', $socket->frame('subscribed')['channel']);
        $greeting = $socket->frame('message');
        equal(['greeting', 'you follow the news'], [$greeting['event'], $greeting['data']]);
        $socket->send('{"type":"publish","channel":"me","data":"who"}');
        equal(1, $socket->frame('message')['data']);
        $socket->send('{"type":"publish","channel":"me","data":"mute"}');
        equal('news', $socket->frame('unsubscribed')['channel']);
        $socket->send('{"type":"publish","channel":"me","data":"bye"}');
        $end = 'no end';
        try {
            $socket->frame('message');
        } catch (Exception $e) {
            $end = $e->getMessage();
        }
        equal('closed with 4000: as you wish', $end);
        $server->stop();
    },

    'php/docs/api.md#what-you-keep-with-a-connection php' => function (Block $block, Lab $lab) use ($serve): void {
        $server = $serve($block, $lab);
        $socket = new Socket($lab->port, '/ws?name=Ada');
        foreach ([1, 2] as $n) {
            $socket->send("{\"type\":\"publish\",\"channel\":\"a\",\"data\":1,\"ref\":$n}");
            equal("Ada said $n things", $socket->frame('reply')['data']);
        }
        $server->stop();
    },

    'php/docs/api.md#binary php' => function (Block $block, Lab $lab) use ($serve): void {
        $server = $serve($block, $lab);
        equal('ff007f', bin2hex((new Socket($lab->port, '/raw/pixels'))->receive()));
        equal('"/wB/"', (new Events($lab->port, '/sse?channel=pixels'))->next()['data']);
        $server->stop();
    },

    'php/docs/api.md#push php 2' => function (Block $block, Lab $lab) use ($serve): void {
        $server = $serve($block, $lab);
        foreach ([1, 2] as $_) {
            equal('{"home":1,"guests":0}', (new Socket($lab->port, '/raw/cache-score'))->receive());
        }
        $server->stop();
    },

    'php/docs/presence.md#who-somebody-is php' => function (Block $block, Lab $lab) use ($secret): void {
        $token = json_decode($lab->php($block->code, 'token.php', '-d', $secret)->ends(), true)['token'];
        $server = $lab->php('<?php rt_run();', 'block.php', '-d', $secret, '-d', "realtime.listen=127.0.0.1:$lab->port");
        $lab->ready($server);
        $socket = new Socket($lab->port, "/ws?token=$token");
        $socket->send('{"type":"subscribe","channel":"presence-room"}');
        equal([['user' => '42', 'info' => ['name' => 'Ada']]], $socket->frame('subscribed')['members']);
        $server->stop();
    },

    // Under the page, below.
    'php/docs/presence.md#who-somebody-is php 2' => fn (Block $block) => equal('room.php', $block->file),

    'php/docs/presence.md#in-the-browser js' => function (Block $block, Lab $lab): void {
        $lab->write('public/script.html', "<!doctype html><script>document.cookie = 'name=Ada';</script>"
            . "<script type=\"module\">\n$block->code</script>\n");
        $room = $lab->php(file_get_contents("$lab->directory/room.php"), 'room.php', '-d', 'realtime.presence_grace=0',
            '-d', "realtime.listen=127.0.0.1:$lab->port", '-d', "realtime.docroot=$lab->directory/public");
        $lab->ready($room);
        $page = $lab->browse('/script.html');
        $page->prints('Ada');
        $other = connect($lab->port);
        fwrite($other, "GET /sse?channel=presence-room HTTP/1.1\r\nHost: x\r\nCookie: name=Bob\r\n\r\n");
        $page->prints('Bob has come');
        $who = $lab->php(file_get_contents("$lab->directory/who.php"), 'who.php')->ends();
        equal("ada is Ada, with 1 connection(s)\nbob is Bob, with 1 connection(s)", trim($who));
        fclose($other);
        $page->prints('Bob has gone');
        $room->stop();
    },

    // Run with the page, below.
    'php/docs/presence.md#in-php php' => fn (Block $block) => equal('who.php', $block->file),

    'php/docs/api.md#your-own-event-loop php' => function (Block $block, Lab $lab) use ($serve): void {
        $serve($block, $lab);
        $socket = new Socket($lab->port, '/raw/mirror');
        $socket->send('abc');
        equal('cba', $socket->receive());
    },
];
