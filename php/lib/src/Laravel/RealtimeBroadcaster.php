<?php

declare(strict_types=1);

namespace Realtime\Laravel;

use Illuminate\Broadcasting\BroadcastException;
use Illuminate\Broadcasting\Broadcasters\Broadcaster;
use Illuminate\Broadcasting\Broadcasters\UsePusherChannelConventions;
use Realtime\Exception;
use Symfony\Component\HttpKernel\Exception\AccessDeniedHttpException;

/**
 * Laravel's broadcasting by the extension: events go straight to its server, without HTTP, and Laravel Echo talks to that
 * server with pusher-js.
 *
 * The authorization route (routes/channels.php) answers as Reverb's and Pusher's does, signed with realtime.pusher_app.
 */
final class RealtimeBroadcaster extends Broadcaster
{
    use UsePusherChannelConventions;

    /** The most channels that the server takes in one call. */
    private const CHANNELS_MAX = 1000;

    /**
     * Lets a user into a channel, or throws.
     *
     * @param \Illuminate\Http\Request $request with `channel_name` and `socket_id`, as Echo sends them
     * @return array{auth: string, channel_data?: string}
     * @throws AccessDeniedHttpException
     */
    public function auth($request)
    {
        $channel = $request->input('channel_name');
        if (!is_string($channel) || $channel === '') {
            throw new AccessDeniedHttpException('channel_name is missing');
        }
        $name = $this->normalizeChannelName($channel);
        if ($this->isGuardedChannel($channel) && !$this->retrieveUser($request, $name)) {
            throw new AccessDeniedHttpException();
        }
        return $this->verifyUserCanAccessChannel($request, $name);
    }

    /**
     * The signature for a user who may.
     *
     * @param \Illuminate\Http\Request $request
     * @param mixed $result what the channel's callback returned: on a presence channel, what others see of the user
     * @return array{auth: string, channel_data?: string}
     */
    public function validAuthenticationResponse($request, $result)
    {
        $channel = $request->input('channel_name');
        $socket = $request->input('socket_id');
        if (!is_string($socket)) {
            throw new AccessDeniedHttpException('socket_id is missing');
        }
        $member = null;
        if (str_starts_with($channel, 'presence-')) {
            $user = $this->retrieveUser($request, $this->normalizeChannelName($channel));
            $id = method_exists($user, 'getAuthIdentifierForBroadcasting')
                ? $user->getAuthIdentifierForBroadcasting()
                : $user->getAuthIdentifier();
            $member = ['user_id' => (string) $id, 'user_info' => $result];
        }
        try {
            return rt_pusher_auth($socket, $channel, $member);
        } catch (\ValueError $error) {
            // The client made these up; the programmer has no hand in them.
            throw new AccessDeniedHttpException($error->getMessage(), $error);
        }
    }

    /**
     * The answer of the route of pusher-js's signin(), /broadcasting/user-auth: whom the closure of
     * Broadcast::resolveAuthenticatedUserUsing() says the request is from, signed; null, and so 403, if it names nobody.
     *
     * @param \Illuminate\Http\Request $request with `socket_id`
     * @return array{auth: string, user_data: string}|null
     * @throws AccessDeniedHttpException if the socket_id is none
     * @throws \ValueError if the closure names a user without an `id`
     */
    public function resolveAuthenticatedUser($request)
    {
        // Laravel 8 has no such closure, and no such route.
        $user = method_exists(parent::class, __FUNCTION__) ? parent::resolveAuthenticatedUser($request) : null;
        if (!$user) {
            return null;
        }
        $socket = $request->input('socket_id');
        if (!is_string($socket) || preg_match('~^\d+\.\d+$~D', $socket) !== 1) {
            throw new AccessDeniedHttpException('socket_id is missing, or none');
        }
        return rt_pusher_auth($socket, '', $user);
    }

    /**
     * Pushes an event to all subscribers; with `toOthers()`, to all but the connection that the request came from.
     *
     * @param array<\Illuminate\Broadcasting\Channel|string> $channels
     * @param string $event
     * @param array<string, mixed> $payload
     * @throws BroadcastException if the server does not take it
     */
    public function broadcast(array $channels, $event, array $payload = []): void
    {
        $socket = $payload['socket'] ?? null;
        unset($payload['socket']);
        try {
            $open = [];
            foreach ($this->formatChannels($channels) as $channel) {
                if (str_starts_with($channel, 'private-encrypted-')) {
                    rt_broadcast($channel, self::sealed($channel, $payload), event: $event, except: $socket);
                } else {
                    $open[] = $channel;
                }
            }
            foreach (array_chunk($open, self::CHANNELS_MAX) as $some) {
                rt_broadcast($some, $payload, event: $event, except: $socket);
            }
        } catch (Exception | \ValueError $error) {
            // A ValueError also because of what a client has sent as its X-Socket-ID.
            throw new BroadcastException("realtime: {$error->getMessage()}", 0, $error);
        }
    }

    /**
     * What pusher-js opens with the secret that the authorization route gives it: XSalsa20-Poly1305, as Pusher's SDKs do.
     *
     * @param array<string, mixed> $payload
     * @return array{nonce: string, ciphertext: string}
     */
    private static function sealed(string $channel, array $payload): array
    {
        $secret = base64_decode(rt_pusher_auth('1.1', $channel)['shared_secret']);
        $nonce = random_bytes(SODIUM_CRYPTO_SECRETBOX_NONCEBYTES);
        $text = json_encode($payload, JSON_THROW_ON_ERROR);
        return [
            'nonce' => base64_encode($nonce),
            'ciphertext' => base64_encode(sodium_crypto_secretbox($text, $nonce, $secret)),
        ];
    }
}
