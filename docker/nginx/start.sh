#!/bin/sh
# Fills in nginx/nginx.conf, which is that of `make run`, for a container: no rule of it is written anew here. Its
# upstreams are two sockets of this nginx itself, behind which main.conf finds workers and Web API by DNS.
#
# SERVICE          name and port of the workers; each address that the name has is one
# API_ORIGIN       where Spotify's Web API is
# ALLOWED_ORIGINS  as the workers have it
# TRUSTED_PROXIES  comma-separated addresses or networks of proxies before this one, whose X-Forwarded-For is believed
# PROCESSES        of nginx
#
# Further files for nginx's http level go into /etc/spotify-auth/http.d/.
set -eu
files=/etc/spotify-auth
dir=/run/nginx

scheme=${API_ORIGIN%%://*}
api=${API_ORIGIN#*://}
case $api,$scheme in
*:*) api_address=$api ;;
*,https) api_address=$api:443 ;;
*) api_address=$api:80 ;;
esac
resolver=$(awk '$1 == "nameserver" { print $2 ~ /:/ ? "[" $2 "]" : $2 }' /etc/resolv.conf | xargs)
if [ -z "$resolver" ]; then
    echo "no nameserver in /etc/resolv.conf: the workers are found by DNS" >&2
    exit 1
fi

entries() {
    echo "$1" | tr ', ' '\n\n' | sed '/^$/d'
}

http() {
    echo 'map $http_origin $spotify_auth_listed_origin {'
    echo '    default "";'
    entries "${ALLOWED_ORIGINS:-}" | sed 's|.*|    "&" $http_origin;|'
    echo '}'
    if [ -n "${TRUSTED_PROXIES:-}" ]; then
        entries "$TRUSTED_PROXIES" | sed 's|.*|set_real_ip_from &;|'
        grep '^real_ip_' "$files/nginx/spotify-auth-proxy.conf"
    fi
    echo "include $files/http.d/*.conf;"
}

# The same address thrice: a request that a worker did not answer gets a second try, and a third. Connections are short
# of age because a worker that ends leaves it to nginx to close them, and one that is new is to get its share soon.
socket="server unix:$dir/service.sock max_fails=0;"
upstream="$socket $socket $socket keepalive_time 5s; keepalive_timeout 5s;"
fill() {
    sed -e "s|@user@|include $dir/main.conf;|" -e "s|@servers@|$upstream|" -e "s|@origins@|$dir/http.conf|" \
        -e "s|@api_address@|unix:$dir/api.sock|" -e "s|@api_scheme@|$scheme|" -e "s|@api_host@|${api%:*}|" \
        -e "s|@api_file@|$files/nginx/spotify-api.conf|" -e "s|@files@|$files/nginx|" -e "s|@dir@|$dir|" \
        -e "s|@workers@|${PROCESSES:-2}|" -e "s|@connections@|16384|" -e "s|@listen@|8080|" \
        -e "s|@resolver@|$resolver|" -e "s|@service@|$SERVICE|" -e "s|@api@|$api_address|" "$1"
}

# A container that was killed and started again finds its old sockets, and nginx will not replace them.
mkdir -p "$dir"
rm -f "$dir"/*.sock
ln -sf /dev/stdout "$dir/access.log"
ln -sf /dev/stderr "$dir/error.log"
http >"$dir/http.conf"
fill "$files/docker/main.conf" >"$dir/main.conf"
fill "$files/nginx/nginx.conf" >"$dir/nginx.conf"

# A request has four descriptors here: the client's, two ends of a socket, the worker's.
ulimit -n "$(ulimit -H -n)"
exec nginx -e stderr -c "$dir/nginx.conf" "$@"
