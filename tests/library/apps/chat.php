<?php
/** An application that uses more of Ratchet than its tutorial does, as it is written for Ratchet: it knows nothing of the extension. */

namespace MyApp;

use Ratchet\ConnectionInterface;
use Ratchet\MessageComponentInterface;
use Ratchet\WebSocket\WsServerInterface;

class Chat implements MessageComponentInterface, WsServerInterface
{
    protected $clients;

    public function __construct()
    {
        $this->clients = new \SplObjectStorage();
    }

    public function onOpen(ConnectionInterface $conn)
    {
        $this->clients->attach($conn);
        $conn->name = trim($conn->httpRequest->getUri()->getQuery(), '=') ?: 'nobody';
        echo "New connection! ({$conn->resourceId}) from {$conn->remoteAddress}\n";
        $conn->send("hello {$conn->name}, you are one of " . count($this->clients));
    }

    public function onMessage(ConnectionInterface $from, $msg)
    {
        if ($msg === 'fail') {
            throw new \DomainException('as you wish');
        }
        if ($msg === 'bye') {
            $from->close();
            return;
        }
        foreach ($this->clients as $client) {
            if ($from !== $client) {
                $client->send("{$from->name}: $msg");
            }
        }
    }

    public function onClose(ConnectionInterface $conn)
    {
        $this->clients->detach($conn);
        echo "Connection {$conn->resourceId} has disconnected\n";
    }

    public function onError(ConnectionInterface $conn, \Exception $e)
    {
        echo "An error has occurred: {$e->getMessage()}\n";
        $conn->close();
    }

    public function getSubProtocols()
    {
        return ['chat.v1'];
    }
}
