<?php
// A login as any PHP site has it.
session_start();
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    session_regenerate_id(true);
    $_SESSION['user'] = $_POST['user'] ?? '';
}
header('Content-Type: application/json');
echo json_encode(['user' => $_SESSION['user'] ?? null]);
