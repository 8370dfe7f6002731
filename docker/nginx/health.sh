#!/bin/bash
# Whether this nginx answers. Whether the workers are ready is asked of each worker, not here: an nginx that is stopped
# because Redis is away would answer nobody.
exec 3<>/dev/tcp/127.0.0.1/8080 || exit 1
printf 'GET /auth HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r -t 3 _ status _ <&3
[ "$status" = 404 ]
