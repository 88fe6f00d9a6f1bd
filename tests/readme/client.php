<?php
/**
 * Real clients, as small as they can be: HTTP, Server-Sent Events, WebSocket. On plain PHP streams, so that nothing
 * of the extension that is under test takes part in testing it.
 */
declare(strict_types=1);

/** Longer than anything takes on a busy machine. */
const PATIENCE = 60.0;

/** @return array{int, string} the status and the body */
function request(int $port, string $target, ?string $json = null): array
{
    $body = @file_get_contents("http://127.0.0.1:$port$target", false, stream_context_create(['http' => [
        'method' => $json === null ? 'GET' : 'POST',
        'header' => $json === null ? [] : ['Content-Type: application/json'],
        'content' => $json ?? '',
        'ignore_errors' => true,
        'timeout' => PATIENCE,
    ]]));
    if ($body === false) {
        throw new Exception("no answer from $target");
    }
    preg_match('~^HTTP/\S+ (\d+)~', $http_response_header[0], $found);
    return [(int) $found[1], $body];
}

/** An EventSource. */
final class Events
{
    /** @var resource */
    private $stream;

    public function __construct(int $port, string $target)
    {
        $this->stream = connect($port);
        fwrite($this->stream, "GET $target HTTP/1.1\r\nHost: 127.0.0.1:$port\r\nAccept: text/event-stream\r\n\r\n");
        $head = readHead($this->stream);
        if (!preg_match('~^HTTP/1.1 200 ~', $head) || !preg_match('~^content-type: text/event-stream~mi', $head)) {
            throw new Exception("$target is no event stream: $head");
        }
    }

    /** The next event's fields; comments, `retry` and the lengths of chunks are skipped. @return array<string, string> */
    public function next(): array
    {
        $event = [];
        while (true) {
            $line = rtrim(readLine($this->stream), "\r\n");
            if (preg_match('~^(id|event|data): ?(.*)$~', $line, $found)) {
                // Of an id and a name the last counts; one without data is of what comes next, too.
                $more = $found[1] === 'data' && isset($event['data']);
                $event[$found[1]] = $more ? "{$event['data']}\n$found[2]" : $found[2];
            } elseif ($line === '' && isset($event['data'])) {
                return $event;
            }
        }
    }
}

/** A WebSocket. */
final class Socket
{
    /** @var resource */
    private $stream;
    /** @var list<array{int, string}> what came before the server had subscribed it */
    private array $early = [];

    public function __construct(int $port, string $target)
    {
        $this->stream = connect($port);
        fwrite($this->stream, "GET $target HTTP/1.1\r\nHost: 127.0.0.1:$port\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            . 'Sec-WebSocket-Key: ' . base64_encode(random_bytes(16)) . "\r\nSec-WebSocket-Version: 13\r\n\r\n");
        $head = readHead($this->stream);
        if (!str_starts_with($head, 'HTTP/1.1 101 ')) {
            throw new Exception("$target is no WebSocket: $head");
        }
        if (str_starts_with($target, '/raw/')) {
            // It is subscribed a little after the handshake, and when it has an answer to this.
            $this->send('sync', 9);
            for ($opcode = 0; $opcode !== 10 && $opcode !== 8; $this->early[] = [$opcode, $payload]) {
                [$opcode, $payload] = $this->read();
            }
        }
    }

    public function send(string $text, int $opcode = 1): void
    {
        $mask = random_bytes(4);
        $length = strlen($text);
        $head = chr(0x80 | $opcode) . ($length < 126 ? chr(0x80 | $length) : chr(0x80 | 126) . pack('n', $length));
        fwrite($this->stream, $head . $mask . ($text ^ substr(str_repeat($mask, intdiv($length, 4) + 1), 0, $length)));
    }

    /** The next text or binary message; pings are answered. A close is an exception that says its code. */
    public function receive(): string
    {
        while (true) {
            [$opcode, $payload] = array_shift($this->early) ?? $this->read();
            switch ($opcode) {
                case 1:
                case 2:
                    return $payload;
                case 8:
                    throw new Exception('closed with ' . ($payload === '' ? 'no code' : unpack('n', $payload)[1] . ': ' . substr($payload, 2)));
                case 9:
                    $this->send($payload, 10);
            }
        }
    }

    /** @return array{int, string} the opcode and the payload of the next frame */
    private function read(): array
    {
        [$first, $second] = array_values(unpack('C2', readBytes($this->stream, 2)));
        $length = match ($second) {
            126 => unpack('n', readBytes($this->stream, 2))[1],
            127 => unpack('J', readBytes($this->stream, 8))[1],
            default => $second,
        };
        return [$first & 0x0f, readBytes($this->stream, $length)];
    }

    /** The next frame of the native protocol that has this type. @return array<string, mixed> */
    public function frame(string $type): array
    {
        do {
            $frame = json_decode($this->receive(), true, flags: JSON_THROW_ON_ERROR);
            if ($frame['type'] === 'error' && $type !== 'error') {
                throw new Exception('the server says: ' . $frame['message']);
            }
        } while ($frame['type'] !== $type);
        return $frame;
    }

    /** Whether nothing comes for that long. */
    public function silent(float $seconds): bool
    {
        $read = [$this->stream];
        $none = null;
        return stream_select($read, $none, $none, (int) $seconds, (int) (fmod($seconds, 1) * 1e6)) === 0;
    }

    public function close(int $code = 1000): void
    {
        $this->send(pack('n', $code), 8);
        fclose($this->stream);
    }
}

/** @return resource */
function connect(int $port)
{
    $stream = @stream_socket_client("tcp://127.0.0.1:$port", $errno, $error, PATIENCE)
        ?: throw new Exception("nobody answers on port $port: $error");
    stream_set_timeout($stream, (int) PATIENCE);
    // Else PHP reads ahead, and silent() would not see what waits in its buffer.
    stream_set_read_buffer($stream, 0);
    return $stream;
}

/** @param resource $stream */
function readHead($stream): string
{
    for ($head = ''; !str_ends_with($head, "\r\n\r\n");) {
        $head .= readLine($stream);
    }
    return $head;
}

/** @param resource $stream */
function readLine($stream): string
{
    $line = fgets($stream);
    return $line === false || !str_ends_with($line, "\n") ? throw new Exception('the server fell silent') : $line;
}

/** @param resource $stream */
function readBytes($stream, int $length): string
{
    for ($bytes = ''; strlen($bytes) < $length;) {
        $more = fread($stream, $length - strlen($bytes));
        if ($more === false || $more === '') {
            throw new Exception('the server fell silent');
        }
        $bytes .= $more;
    }
    return $bytes;
}
