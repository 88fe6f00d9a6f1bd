<?php
/** What a Symfony application publishes with: its own Hub, by HTTP, to the server in this process. */

use Symfony\Component\HttpClient\NativeHttpClient;
use Symfony\Component\Mercure\Hub;
use Symfony\Component\Mercure\Jwt\StaticTokenProvider;
use Symfony\Component\Mercure\Update;

error_reporting(E_ALL & ~E_DEPRECATED); // Debian's Symfony is older than its PHP
require 'Symfony/Component/Mercure/autoload.php';
require 'Symfony/Component/HttpClient/autoload.php';

/** A token that may publish, as the bundle makes it of MERCURE_JWT_SECRET. */
function token(string $secret): string
{
    $base64url = fn (string $text) => rtrim(strtr(base64_encode($text), '+/', '-_'), '=');
    $signed = $base64url('{"typ":"JWT","alg":"HS256"}') . '.' . $base64url('{"mercure":{"publish":["*"]}}');
    return "$signed." . $base64url(hash_hmac('sha256', $signed, $secret, true));
}

function hub(string $secret): Hub
{
    $url = 'http://127.0.0.1:8080/.well-known/mercure';
    return new Hub($url, new StaticTokenProvider(token($secret)), httpClient: new NativeHttpClient());
}

rt_on_message(function (Realtime\Message $m): string {
    try {
        return hub($m->data['secret'])->publish(new Update(...$m->data['update']));
    } catch (Symfony\Component\Mercure\Exception\RuntimeException $error) {
        return $error->getPrevious()->getMessage();
    }
}, 'ship');
rt_listen('127.0.0.1:8080');
rt_run();
