<?php

/**
 * What the extension `realtime` gives to PHP, for IDEs and static analysers.
 *
 * Every function can also throw what PHP itself throws for wrong arguments: a TypeError or an ArgumentCountError.
 * "Server" is the one in this process, else the one that answers on the control socket (`realtime.socket`).
 */

namespace {

    /**
     * Pushes a message to every subscriber of one or several channels.
     *
     * $data is sent as json_encode() would write it (JsonSerializable, enums and floats as there); a Realtime\Binary, and
     * a string that is not UTF-8, as binary.
     *
     * @param string|array<string> $channel a channel's name, or 1 to 1000 of them
     * @param string $event what browsers listen for: 1 to 200 bytes without control characters
     * @param string|null $except the id of a connection that does not get it, mostly its author
     * @param string|null $id an id of your own, which makes a retry harmless: the same id is accepted once in a channel. What
     *        rt_broadcast() has returned without $id, from this server or one before, is none
     * @param bool $store whether it is kept in history
     * @return string the id of the message (with several channels, of the last one's), once the server has accepted it
     * @throws ValueError if a channel, the event, $except or $id is not valid, or $data cannot be encoded as JSON
     * @throws Realtime\Exception if there is no server, the message is over realtime.max_message_size, $id is one as the server
     *         gives them itself, or more waits for the server than realtime.queue_bytes and that did not change within
     *         realtime.timeout
     * @throws Throwable what a jsonSerialize() in $data throws
     */
    function rt_broadcast(string|array $channel, mixed $data, string $event = 'message', ?string $except = null, ?string $id = null, bool $store = true): string {}

    /**
     * Publishes an update as a publisher of the Mercure protocol does, without HTTP and without a token: for what
     * rt_broadcast() has no word for. Subscribers of all protocols get it.
     *
     * @param string|array<string> $topics the topic, or 1 to 1000 of them, of which the first is canonical and the others are
     *        alternate: a Mercure client that follows several of them gets one copy. A topic is a channel
     * @param string $data sent to Mercure clients as it is; JSON is JSON for the others, any other text a string
     * @param bool $private whether only those get it whose token covers one of the topics
     * @param string|null $id an id of your own, as in rt_broadcast(); null or empty for none
     * @param string|null $type the event's name; null or empty for `message`
     * @param int|null $retry after how many milliseconds EventSource is to reconnect, from now on
     * @return string the id of the update, as Mercure clients see it, once the server has accepted it
     * @throws ValueError if a topic, $id, $type or $retry is not valid, or $data is not UTF-8
     * @throws Realtime\Exception as rt_broadcast()
     */
    function rt_update(string|array $topics, string $data = '', bool $private = false, ?string $id = null, ?string $type = null, ?int $retry = null): string {}

    /**
     * Sends a message to one connection.
     *
     * @param string $connection the id of a Realtime\Connection
     * @return bool whether the connection is there
     * @throws ValueError if $connection or $event is not valid, or $data cannot be encoded as JSON
     * @throws Realtime\Exception as rt_broadcast()
     */
    function rt_send(string $connection, mixed $data, string $event = 'message'): bool {}

    /**
     * Subscribes a connection to a channel, without asking the rt_on_subscribe() handlers.
     *
     * @return bool whether the connection is there and may have one more subscription
     * @throws ValueError if $connection or $channel is not valid
     * @throws Realtime\Exception if there is no server, or it does not answer within realtime.timeout
     */
    function rt_subscribe(string $connection, string $channel): bool {}

    /**
     * Ends a connection's subscription.
     *
     * @return bool whether there was one
     * @throws ValueError if $connection or $channel is not valid
     * @throws Realtime\Exception if there is no server, or it does not answer within realtime.timeout
     */
    function rt_unsubscribe(string $connection, string $channel): bool {}

    /**
     * Closes a connection.
     *
     * @param int $code 1000, or 3000 to 4999 with a meaning of your own (RFC 6455, section 7.4)
     * @param string $reason for the client, at most 123 bytes of UTF-8
     * @return bool whether the connection is there
     * @throws ValueError if $connection, $code or $reason is not valid
     * @throws Realtime\Exception if there is no server, or it does not answer within realtime.timeout
     */
    function rt_close(string $connection, int $code = 1000, string $reason = ''): bool {}

    /**
     * Signs a token (a JSON Web Token, HS256) with realtime.secret: it says to the server who a client is and what is open to
     * it, and nobody need be asked. Any PHP process can make one; the server is not asked either.
     *
     * @param array{sub?: string|int, channels?: string|list<string>, publish?: string|list<string>, info?: mixed, nbf?: int, ...} $claims
     *        `sub` is the user (1 to 200 bytes); `channels` are patterns of channels that are open to it, also `private-` and
     *        `presence-` ones, without asking rt_on_subscribe(); `publish` are patterns of channels to which it may publish
     *        without rt_on_message(), as if rt_broadcast() had; `info` is what others may know of it. Others are kept as given
     * @param int $ttl for how many seconds it is valid, 1 to realtime.max_token_ttl; a connection is closed with 4010 when its
     *        token expires and its client has brought no fresh one
     * @throws ValueError if a claim or $ttl is not valid, or the token would have more than 8192 bytes
     * @throws Realtime\Exception if realtime.secret is not set
     */
    function rt_token(array $claims, int $ttl = 3600): string {}

    /**
     * The answer of your auth endpoint to a client of the Pusher protocol (pusher-js, Laravel Echo): send it as JSON. Decide
     * first whether whoever asks may subscribe. Any PHP process can make one; the server is not asked.
     *
     * @param string $socket_id what the client sent as `socket_id`
     * @param string $channel what it sent as `channel_name`: a `private-` or `presence-` channel; empty to sign the user in
     *        (`pusher.signin()`)
     * @param array{user_id?: string|int, user_info?: mixed, id?: string|int, watchlist?: list<string>, ...}|null $user on
     *        `presence-` channels who it is: `user_id`, and `user_info` for the others; to sign in: `id`, and what you like
     * @return array<string, string> `auth`, and `channel_data`, `user_data` or `shared_secret` where the protocol wants them
     * @throws ValueError if the id, the channel or $user does not fit
     * @throws Realtime\Exception if realtime.pusher_app is not set, or for a `private-encrypted-` channel
     *         realtime.pusher_master_key
     */
    function rt_pusher_auth(string $socket_id, string $channel, ?array $user = null): array {}

    /**
     * Closes all connections of a user.
     *
     * @param string $user the `sub` of their tokens
     * @param int $code 1000, after which our client stays away, or 3000 to 4999 with a meaning of your own
     * @param string $reason for the client, at most 123 bytes of UTF-8
     * @return int the number of connections
     * @throws ValueError if $user, $code or $reason is not valid
     * @throws Realtime\Exception if there is no server, it does not answer within realtime.timeout, or it has taken over from another one
     *         of which it cannot say that it has closed its part
     */
    function rt_disconnect(string $user, int $code = 1000, string $reason = ''): int {}

    /**
     * Takes tokens back, and closes the connections that came with them with 4011: all that a user has got up to now, or a
     * single one. The server remembers it until they would have expired; one that is started anew does so only with
     * `realtime.history = disk`.
     *
     * @param string|null $user the `sub` of the tokens
     * @param string|null $token the token itself, also one of another issuer
     * @return int the number of connections
     * @throws ValueError if not exactly one of the two is given, or $user is not valid
     * @throws Realtime\Exception if $token is none that the server accepts, realtime.max_revocations are remembered already (the
     *         connections are closed all the same), there is no server, it does not answer within realtime.timeout, or it has
     *         taken over from another one of which it cannot say that it has closed its part
     */
    function rt_revoke(?string $user = null, ?string $token = null): int {}

    /**
     * Registers a handler for new connections: fn(Realtime\Connection $c). One that returns false refuses the connection,
     * and so does one that throws. Handlers are called in the order in which they were registered. What they do with $c
     * (send, subscribe, close) happens once it is let in.
     *
     * @throws TypeError if $handler is not callable
     */
    function rt_on_open(callable $handler): void {}

    /**
     * Registers a handler for what clients send: fn(Realtime\Message $m), but for what a token's `publish` or
     * realtime.client_events lets pass to other clients at once. The first value other than null that a handler
     * returns is the reply to that message. What it throws goes to rt_on_error(), or becomes a warning with its trace.
     *
     * @param string $channel a pattern: `*` stands for any run of characters in a channel's name (`chat.*`)
     * @throws ValueError if $channel is no such pattern
     */
    function rt_on_message(callable $handler, string $channel = '*'): void {}

    /**
     * Registers a handler for subscriptions: fn(Realtime\Connection $c, string $channel). One that returns false, or throws,
     * refuses; `private-` and `presence-` channels open only if one returns true. Not asked about what the client's token opens.
     *
     * One that returns `['user' => 'ada', 'info' => ['name' => 'Ada']]` opens the channel, too, and says as whom the client is on
     * a presence channel (rt_presence()), for those that have no token; `info`, which others get to see, may be left out.
     *
     * @throws TypeError if $handler is not callable
     */
    function rt_on_subscribe(callable $handler): void {}

    /**
     * Registers a handler for connections that have ended: fn(Realtime\Connection $c, int $code, string $reason).
     *
     * @throws TypeError if $handler is not callable
     */
    function rt_on_close(callable $handler): void {}

    /**
     * Registers a handler for what other handlers throw: fn(Realtime\Connection $c, Throwable $e). Without one it becomes a
     * warning.
     *
     * @throws TypeError if $handler is not callable
     */
    function rt_on_error(callable $handler): void {}

    /**
     * Starts the server in this process. Not in a web request of PHP-FPM and the like, whose server is a process of its own.
     *
     * @param string|null $address host:port, [ipv6]:port or unix:/path; null takes realtime.listen. Port 0 takes any free one
     * @return string the address that it listens on
     * @throws ValueError if $address is not of that form
     * @throws Realtime\Exception if it cannot listen there (says who does, if that is known), if another server has the control
     *         socket, if this process listens on another address already or handles another server's events, or in a web request
     */
    function rt_listen(?string $address = null): string {}

    /**
     * Calls the handlers for what clients do, and timers, until SIGINT or SIGTERM, rt_stop(), or the time is up.
     *
     * Without a server in this process it handles the events of the one that PHP-FPM or the like has started as a process of
     * its own, together with other such workers, and looks for the next when that ends; if there is none it starts one here.
     * Signals for which the script has a handler of its own (pcntl_signal()) do not end it.
     *
     * In a web request of PHP-FPM and the like it handles the events for which the server runs this script
     * (realtime.handler), and returns; $seconds and signals mean nothing there.
     *
     * @param float|null $seconds null is for ever
     * @return int the number of events handled
     * @throws ValueError if $seconds is negative or not a number
     * @throws Realtime\Exception as rt_listen(), if it is running already, or in a web request that is not the server's
     */
    function rt_run(?float $seconds = null): int {}

    /**
     * Handles what waits, for a script with an event loop of its own; never waits.
     *
     * @param int $max at most so many events; 0 is all that wait now
     * @return int the number of events handled
     * @throws ValueError if $max is negative
     * @throws Realtime\Exception in a web request that is not the server's
     */
    function rt_dispatch(int $max = 0): int {}

    /**
     * A stream that stream_select() finds readable when an event or a timer waits for rt_dispatch(). Do not read from it.
     *
     * Without a server in this process it begins to handle the events of another one's, as rt_run() does.
     *
     * @return resource
     * @throws Realtime\Exception if no server runs in this process or takes its help, if it has no descriptors left, or in a
     *         web request
     */
    function rt_stream() {}

    /**
     * Ends rt_run() or rt_dispatch() after the handler that runs now. Throws nothing.
     */
    function rt_stop(): void {}

    /**
     * Calls a function again and again in rt_run() or rt_dispatch(), without drift. Turns that were missed are left out.
     *
     * @return int a number for rt_cancel()
     * @throws ValueError if $seconds is not a number greater than 0
     * @throws Realtime\Exception in a web request, which ends before it would run
     */
    function rt_every(float $seconds, callable $callback): int {}

    /**
     * Calls a function once in rt_run() or rt_dispatch(), when the time has passed.
     *
     * @return int a number for rt_cancel()
     * @throws ValueError if $seconds is negative or not a number
     * @throws Realtime\Exception in a web request, which ends before it would run
     */
    function rt_after(float $seconds, callable $callback): int {}

    /**
     * Ends a timer. Throws nothing.
     *
     * @return bool whether there was one with that number
     */
    function rt_cancel(int $timer): bool {}

    /**
     * The channels that have subscribers.
     *
     * @param string $pattern `*` stands for any run of characters
     * @return array<string, int> the number of subscribers by channel
     * @throws ValueError if $pattern is not valid
     * @throws Realtime\Exception if there is no server, or it does not answer within realtime.timeout
     */
    function rt_channels(string $pattern = '*'): array {}

    /**
     * All connections, or those subscribed to a channel.
     *
     * @return list<Realtime\Connection>
     * @throws ValueError if $channel is not valid
     * @throws Realtime\Exception if there is no server, or it does not answer within realtime.timeout
     */
    function rt_connections(?string $channel = null): array {}

    /**
     * The newest messages that a channel's history keeps, the first after $since, or the last before $before; oldest first.
     *
     * Page by page: the id of the last message is $since of the page after it, that of the first is $before of the page
     * before it, and an empty page is the end, whatever is published and forgotten meanwhile.
     *
     * @param int $limit 1 to 1000000
     * @param string|null $since the id of a message
     * @param string|null $before the same; not both
     * @return list<array{id: string, event: string, data: mixed, age: float}> age in seconds
     * @throws ValueError if $channel, $limit, $since or $before is not valid
     * @throws Realtime\Exception if the history does not reach back to $since any more (says how far it does) or knows nothing of
     *         either, if there is no server, or it does not answer within realtime.timeout
     */
    function rt_history(string $channel, int $limit = 100, ?string $since = null, ?string $before = null): array {}

    /**
     * Who is on a presence channel.
     *
     * @param string $channel a name that begins with `presence-`
     * @return array<string|int, array{info: mixed, connections: int}> by user, in order: what others may know of it (`info` of its
     *         token, or of what rt_on_subscribe() returned; null for nothing), and the number of its connections, which is 0 while
     *         it may come back within realtime.presence_grace. As everywhere in PHP, a user "42" is the key 42
     * @throws ValueError if $channel is not the name of a presence channel
     * @throws Realtime\Exception if there is no server, or it does not answer within realtime.timeout
     */
    function rt_presence(string $channel): array {}

    /**
     * The server's numbers.
     *
     * @return array{uptime: float, pid: int, address: string, connections: int, connections_total: int, by_transport: array<string, int>, channels: int, subscriptions: int, published: int, delivered: int, received: int, dropped_slow: int, history_messages: int, history_bytes: int, shards: int, handler_queued: int, handler_requests: int, handler_retried: int, handler_failed: int, tasks: array<string, int>}
     * @throws Realtime\Exception if there is no server, or it does not answer within realtime.timeout
     */
    function rt_stats(): array {}
}

namespace Realtime {

    /**
     * What could not be done though the call was right: no server, no room, an address taken. The message names the cause
     * and the cure.
     */
    class Exception extends \Exception {}

    /**
     * Bytes that are sent as they are, not as JSON; and what a client sent as binary.
     */
    final class Binary implements \Stringable
    {
        /** The bytes. */
        public readonly string $bytes;

        /**
         * @throws \Error if it is called a second time
         */
        public function __construct(string $bytes) {}

        /** The bytes. Throws nothing. */
        public function __toString(): string {}
    }

    /**
     * A client's connection, as it was opened. Handlers and rt_connections() give it; it cannot be made, cloned or serialized.
     */
    final class Connection
    {
        /** 32 hexadecimal digits; what rt_send() and `except:` take. */
        public readonly string $id;

        /** websocket, raw, sse, stream, poll, http or pusher. */
        public readonly string $transport;

        /** The client's address, without the port; empty for a Unix socket. */
        public readonly string $ip;

        /** The path of the request, without the query. */
        public readonly string $path;

        /** The query, as in $_GET. */
        public readonly array $query;

        /** The headers by name in lower case; a repeated one joined with commas. */
        public readonly array $headers;

        /** The cookies, as in $_COOKIE. */
        public readonly array $cookies;

        /** Who it is: the `sub` of its token (rt_token()), or as whom a Pusher client has signed in; null without either. */
        public readonly ?string $user;

        /**
         * What your handlers keep with it until it ends, wherever the next of them runs: an array of what JSON can say, at
         * most realtime.state_size bytes of it. It can be written in the handlers of this connection's own events, and is
         * kept when a handler is over. One that cannot be kept is dropped, and its handler has failed: with a ValueError if
         * it is no JSON, with a Realtime\Exception if it is too large.
         */
        public ?array $state;

        /** Private: only the server makes one. Throws nothing. */
        private function __construct() {}

        /**
         * Sends a message to this connection alone.
         *
         * @return bool whether the connection is still there
         * @throws \ValueError if $event is not valid, or $data cannot be encoded as JSON
         * @throws Exception as rt_broadcast()
         */
        public function send(mixed $data, string $event = 'message'): bool {}

        /**
         * Closes it.
         *
         * @param int $code 1000, or 3000 to 4999 with a meaning of your own
         * @param string $reason at most 123 bytes of UTF-8
         * @return bool whether the connection is still there
         * @throws \ValueError if $code or $reason is not valid
         * @throws Exception if there is no server, or it does not answer within realtime.timeout
         */
        public function close(int $code = 1000, string $reason = ''): bool {}

        /**
         * Subscribes it to a channel, without asking the rt_on_subscribe() handlers.
         *
         * @return bool whether the connection is still there and may have one more subscription
         * @throws \ValueError if $channel is not valid
         * @throws Exception if there is no server, or it does not answer within realtime.timeout
         */
        public function subscribe(string $channel): bool {}

        /**
         * Ends its subscription to a channel.
         *
         * @return bool whether there was one
         * @throws \ValueError if $channel is not valid
         * @throws Exception if there is no server, or it does not answer within realtime.timeout
         */
        public function unsubscribe(string $channel): bool {}
    }

    /**
     * What a client sent. rt_on_message() handlers get it; it cannot be made, cloned or serialized.
     */
    final class Message
    {
        /** Where it was sent to. */
        public readonly string $channel;

        /** Its event name. */
        public readonly string $event;

        /** JSON decoded to arrays and scalars; a string for a text frame on /raw; a Realtime\Binary for a binary one. */
        public readonly mixed $data;

        /** A number among this server's client messages. */
        public readonly string $id;

        /** Who sent it. */
        public readonly Connection $from;

        /** Private: only the server makes one. Throws nothing. */
        private function __construct() {}

        /**
         * Replies, instead of returning a value. Once, before the handlers have returned; from a server in another process it
         * goes out when they have.
         *
         * @throws \ValueError if $data cannot be encoded as JSON
         * @throws Exception if the message has been answered
         */
        public function reply(mixed $data): void {}
    }
}
