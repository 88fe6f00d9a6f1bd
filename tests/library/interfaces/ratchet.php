<?php
/** The interfaces of Ratchet 0.4 that an application implements, for machines that cannot install it. */

namespace Ratchet {

    interface ConnectionInterface
    {
        public function send($data);

        public function close();
    }

    interface ComponentInterface
    {
        public function onOpen(ConnectionInterface $conn);

        public function onClose(ConnectionInterface $conn);

        public function onError(ConnectionInterface $conn, \Exception $e);
    }

    interface MessageInterface
    {
        public function onMessage(ConnectionInterface $from, $msg);
    }

    interface MessageComponentInterface extends ComponentInterface, MessageInterface
    {
    }
}

namespace Ratchet\WebSocket {

    interface WsServerInterface
    {
        public function getSubProtocols();
    }
}
