<?php

declare(strict_types=1);

namespace Realtime\Ratchet;

use GuzzleHttp\Psr7\Request;
use Psr\Http\Message\RequestInterface;
use Ratchet\ConnectionInterface;
use Realtime;

/**
 * A connection as Ratchet's applications know it: the same object from onOpen() to onClose(), to which they may add properties.
 */
#[\AllowDynamicProperties]
final class Connection implements ConnectionInterface
{
    /** A number among this process's connections. */
    public readonly int $resourceId;

    /** The client's address. */
    public readonly string $remoteAddress;

    /** The handshake; null without guzzlehttp/psr7, which Ratchet itself requires. */
    public readonly ?RequestInterface $httpRequest;

    private static int $last = 0;

    public function __construct(private readonly Realtime\Connection $connection)
    {
        $this->resourceId = ++self::$last;
        $this->remoteAddress = $connection->ip;
        $query = http_build_query($connection->query);
        $target = $connection->path . ($query === '' ? '' : "?$query");
        $this->httpRequest = class_exists(Request::class) ? new Request('GET', $target, $connection->headers) : null;
    }

    /**
     * @param string $data text when it is valid UTF-8, else binary
     */
    public function send($data): self
    {
        // A connection that has gone is none of the application's faults: it will be told.
        rt_send($this->connection->id, (string) $data);
        return $this;
    }

    /**
     * @param int $code 1000, or 3000 to 4999
     */
    public function close($code = 1000): void
    {
        rt_close($this->connection->id, is_int($code) ? $code : 1000);
    }
}
