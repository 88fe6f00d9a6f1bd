<?php

declare(strict_types=1);

namespace Realtime\Ratchet;

use Ratchet\MessageComponentInterface;
use Ratchet\WebSocket\WsServerInterface;
use Realtime;

/**
 * Runs a Ratchet application unchanged: what was `IoServer::factory(new HttpServer(new WsServer($app)), 8080)->run()` is
 *
 *     (new Realtime\Ratchet\Server($app))->run('0.0.0.0:8080');
 *
 * Its clients connect to ws://…/raw/{channel}, any channel unless one is named here. Runs on the command line, in the
 * process that has the server: the application's objects live as long as their connections.
 *
 * As in Ratchet an \Exception that the application throws goes to its onError(), and an \Error does not: it becomes a warning.
 */
final class Server
{
    /** @var array<string, Connection> by the connection's id */
    private array $connections = [];

    /**
     * @param string $channel whose messages the application gets: `*` stands for any run of characters
     */
    public function __construct(private readonly MessageComponentInterface $app, private readonly string $channel = '*')
    {
        rt_on_open($this->opened(...));
        rt_on_message($this->said(...), $channel);
        rt_on_close($this->closed(...));
    }

    /**
     * Listens and serves until SIGINT, SIGTERM or rt_stop().
     *
     * @param string|null $address host:port or unix:/path; null takes realtime.listen
     * @throws Realtime\Exception as rt_listen()
     */
    public function run(?string $address = null): void
    {
        rt_listen($address);
        rt_run();
    }

    private function opened(Realtime\Connection $from): bool
    {
        if (!$this->isOurs($from)) {
            return true;
        }
        if (!$this->speaks($from)) {
            return false;
        }
        $connection = $this->connections[$from->id] = new Connection($from);
        $this->guarded($connection, fn () => $this->app->onOpen($connection));
        return true;
    }

    private function said(Realtime\Message $message): void
    {
        $connection = $this->connections[$message->from->id] ?? null;
        if ($connection !== null) {
            $data = $message->data instanceof Realtime\Binary ? $message->data->bytes : $message->data;
            $this->guarded($connection, fn () => $this->app->onMessage($connection, $data));
        }
    }

    private function closed(Realtime\Connection $from): void
    {
        $connection = $this->connections[$from->id] ?? null;
        if ($connection !== null) {
            unset($this->connections[$from->id]);
            $this->guarded($connection, fn () => $this->app->onClose($connection));
        }
    }

    private function guarded(Connection $connection, \Closure $call): void
    {
        try {
            $call();
        } catch (\Exception $exception) {
            $this->app->onError($connection, $exception);
        }
    }

    /** Others, of other transports and channels, are none of the application's, and served as ever. */
    private function isOurs(Realtime\Connection $from): bool
    {
        $pattern = str_replace('\*', '.*', preg_quote($this->channel, '~'));
        return $from->transport === 'raw' && preg_match("~/raw/$pattern$~Ds", rawurldecode($from->path)) === 1;
    }

    /** The server chooses the first sub-protocol that a client offers; one that the application does not speak is refused. */
    private function speaks(Realtime\Connection $from): bool
    {
        $offered = $from->headers['sec-websocket-protocol'] ?? '';
        if ($offered === '' || !$this->app instanceof WsServerInterface) {
            return true;
        }
        return in_array(trim(explode(',', $offered)[0]), $this->app->getSubProtocols(), true);
    }
}
