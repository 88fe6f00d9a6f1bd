<?php
/** Ratchet's tutorial application, and one that uses more of Ratchet, as they are written for it. */
declare(strict_types=1);

return [
    'the tutorial\'s own Chat: what one says all others get, and its words on the terminal' => function (Lab $lab): void {
        $server = app($lab, 'tutorial');
        $sockets = [];
        foreach ([1, 2, 3] as $number) {
            $sockets[] = new Socket($lab->port, '/raw/chat');
            prints($server, "New connection! ($number)\n");
        }
        [$ann, $bob, $eve] = $sockets;
        $ann->send('Hello World!');
        equals(['Hello World!', 'Hello World!'], [$bob->receive(), $eve->receive()]);
        prints($server, "Connection 1 sending message \"Hello World!\" to 2 other connections\n");
        $eve->close();
        prints($server, "Connection 3 has disconnected\n");
        $bob->send('grüße');
        equals('grüße', $ann->receive());
        prints($server, "Connection 2 sending message \"grüße\" to 1 other connection\n");
        equals([true, true], [$ann->silent(0.1), $bob->silent(0.1)]);
    },
    'the chat greets, passes on, and knows who left' => function (Lab $lab): void {
        $server = app($lab, 'ratchet');
        $ann = new Socket($lab->port, '/raw/chat?ann');
        equals('hello ann, you are one of 1', $ann->receive());
        $bob = new Socket($lab->port, '/raw/chat?bob');
        equals('hello bob, you are one of 2', $bob->receive());
        $ann->send('hi all');
        equals('ann: hi all', $bob->receive());
        $bob->send("\xff\x00", 2);
        equals("bob: \xff\x00", $ann->receive());
        $bob->send('bye');
        equals('closed with 1000: ', said($bob));
        prints($server, 'Connection 2 has disconnected');
        $eve = new Socket($lab->port, '/raw/chat?eve');
        equals('hello eve, you are one of 2', $eve->receive());
        equals(true, $ann->silent(0.2));
        prints($server, 'New connection! (1) from 127.0.0.1');
    },
    'an exception goes to onError()' => function (Lab $lab): void {
        $server = app($lab, 'ratchet');
        $ann = new Socket($lab->port, '/raw/chat?ann');
        $ann->receive();
        $ann->send('fail');
        equals('closed with 1000: ', said($ann));
        prints($server, 'An error has occurred: as you wish');
        prints($server, 'Connection 1 has disconnected');
    },
    'a sub-protocol of the application, and another' => function (Lab $lab): void {
        app($lab, 'ratchet');
        $stream = connect($lab->port);
        $key = base64_encode(random_bytes(16));
        $hello = fn (string $protocol) => "GET /raw/chat HTTP/1.1\r\nHost: 127.0.0.1:$lab->port\r\nUpgrade: websocket\r\n"
            . "Connection: Upgrade\r\nSec-WebSocket-Key: $key\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: $protocol\r\n\r\n";
        fwrite($stream, $hello('chat.v1, other'));
        $head = strtolower(readHead($stream));
        equals(true, str_contains($head, 'sec-websocket-protocol: chat.v1') && str_contains($head, ' 101 '));
        $stream = connect($lab->port);
        fwrite($stream, $hello('other'));
        equals(true, str_contains(readHead($stream), ' 403 '));
    },
    'other channels and transports are not the application\'s' => function (Lab $lab): void {
        $server = app($lab, 'ratchet');
        $ann = new Socket($lab->port, '/raw/chat?ann');
        $ann->receive();
        $other = new Socket($lab->port, '/raw/news');
        $events = new Events($lab->port, '/sse?channel=chat');
        $bob = new Socket($lab->port, '/raw/chat?bob');
        equals('hello bob, you are one of 2', $bob->receive());
        equals(true, $other->silent(0.1));
    },
];

/** Why a socket was closed. */
function said(Socket $socket): string
{
    try {
        return 'a message: ' . $socket->receive();
    } catch (Exception $closed) {
        return $closed->getMessage();
    }
}
