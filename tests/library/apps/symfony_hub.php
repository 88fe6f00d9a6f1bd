<?php
/**
 * A Symfony application's container: the hub as MercureBundle registers it, and what php/docs/frameworks.md says to put into
 * services.yaml. With an address it is the server, too; else it publishes to another process's, as a worker does.
 */

use Symfony\Component\Config\FileLocator;
use Symfony\Component\DependencyInjection\ContainerBuilder;
use Symfony\Component\DependencyInjection\Loader\YamlFileLoader;
use Symfony\Component\HttpClient\NativeHttpClient;
use Symfony\Component\HttpFoundation\Request;
use Symfony\Component\Mercure\Authorization;
use Symfony\Component\Mercure\Discovery;
use Symfony\Component\Mercure\Hub;
use Symfony\Component\Mercure\HubInterface;
use Symfony\Component\Mercure\HubRegistry;
use Symfony\Component\Mercure\Jwt\StaticTokenProvider;
use Symfony\Component\Mercure\Jwt\TokenFactoryInterface;
use Symfony\Component\Mercure\Update;

error_reporting(E_ALL & ~E_DEPRECATED); // Debian's Symfony is older than its PHP
foreach (['Config', 'DependencyInjection', 'HttpClient', 'HttpFoundation', 'Mercure', 'WebLink', 'Yaml'] as $part) {
    $file = "/usr/share/php/Symfony/Component/$part/autoload.php";
    is_file($file) && require_once $file;
}
require 'ROOT/tests/library/autoload.php';

/** What lcobucci/jwt does for the bundle. */
final class Tokens implements TokenFactoryInterface
{
    public function create(?array $subscribe = [], ?array $publish = [], array $additionalClaims = []): string
    {
        $exp = $additionalClaims['exp'] ?? null;
        $claims = ['mercure' => ['subscribe' => $subscribe, 'publish' => $publish], 'exp' => $exp?->getTimestamp()];
        $base64url = fn (string $text) => rtrim(strtr(base64_encode($text), '+/', '-_'), '=');
        $signed = $base64url('{"typ":"JWT","alg":"HS256"}') . '.' . $base64url(json_encode(array_filter($claims)));
        return "$signed." . $base64url(hash_hmac('sha256', $signed, 'a-secret-of-at-least-32-bytes-of-text', true));
    }
}

function container(): ContainerBuilder
{
    $container = new ContainerBuilder();
    $container->register('tokens', Tokens::class);
    $container->register('provider', StaticTokenProvider::class)->addArgument('of-the-publisher');
    $container->register('http_client', NativeHttpClient::class);
    $container->register('mercure.hub.default', Hub::class)->setArguments([
        'http://nobody.invalid/.well-known/mercure',
        new Symfony\Component\DependencyInjection\Reference('provider'),
        new Symfony\Component\DependencyInjection\Reference('tokens'),
        'http://127.0.0.1:8080/.well-known/mercure',
        new Symfony\Component\DependencyInjection\Reference('http_client'),
    ]);
    $container->setAlias(HubInterface::class, 'mercure.hub.default')->setPublic(true);
    $documented = file_get_contents('ROOT/php/docs/frameworks.md');
    preg_match('/```yaml\n(services:\n.*?)```/s', $documented, $found);
    file_put_contents('services.yaml', $found[1]);
    (new YamlFileLoader($container, new FileLocator('.')))->load('services.yaml');
    $container->compile();
    return $container;
}

$hub = container()->get(HubInterface::class);

/** @return array<string, mixed> */
function publish(HubInterface $hub, array $update): array
{
    try {
        return ['id' => $hub->publish(new Update(...$update))];
    } catch (Symfony\Component\Mercure\Exception\ExceptionInterface $error) {
        return [$error::class => $error->getMessage()];
    }
}

if ($argv[1] ?? null) {
    echo json_encode(publish($hub, json_decode($argv[1], true))), "\n";
    exit;
}
rt_on_message(fn (Realtime\Message $m) => publish($hub, $m->data), 'ship');
rt_on_message(function () use ($hub): array {
    $registry = new HubRegistry($hub, ['default' => $hub]);
    $request = Request::create('http://127.0.0.1:8080/');
    (new Discovery($registry))->addLink($request);
    $cookie = (new Authorization($registry))->createCookie($request, ['https://shop.example/orders/{id}']);
    [$link] = $request->attributes->get('_links')->getLinks();
    return [
        'class' => $hub::class,
        'url' => $hub->getUrl(),
        'public' => $hub->getPublicUrl(),
        'jwt' => $hub->getProvider()->getJwt(),
        'link' => [$link->getRels(), $link->getHref()],
        'cookie' => [$cookie->getName(), $cookie->getValue(), $cookie->getPath()],
    ];
}, 'about');
rt_listen('127.0.0.1:8080');
rt_run();
