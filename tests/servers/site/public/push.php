<?php
// Broadcasts what the query says, and says which process did it.
header('Content-Type: application/json');
try {
    $started = hrtime(true);
    $id = rt_broadcast($_GET['channel'], json_decode($_GET['data']), id: $_GET['id'] ?? null, store: ($_GET['store'] ?? '1') === '1');
    echo json_encode(['id' => $id, 'pid' => getmypid(), 'ms' => (hrtime(true) - $started) / 1e6]);
} catch (Realtime\Exception $e) {
    http_response_code(500);
    echo json_encode(['error' => $e->getMessage(), 'pid' => getmypid(), 'ms' => (hrtime(true) - $started) / 1e6]);
}
