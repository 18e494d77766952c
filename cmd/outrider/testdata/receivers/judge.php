<?php
// Judges the requests on stdin by the check in the file of the first argument.
require $argv[1];
$verdicts = [];
foreach (json_decode(stream_get_contents(STDIN), true) as $r) {
    $server = [];
    foreach ($r['headers'] as $name => $value) {
        $server['HTTP_' . strtoupper(strtr($name, '-', '_'))] = $value;
    }
    $verdicts[] = genuine($r['secret'], $server, base64_decode($r['body']));
}
echo json_encode($verdicts);
