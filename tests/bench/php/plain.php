<?php
/* What handler.php does, without the extension: the message in a POST's body goes through the same closure and back. */
declare(strict_types=1);

$handler = fn (array $message): mixed => $message['data'];
$message = json_decode(file_get_contents('php://input'), true);
echo json_encode($handler($message));
