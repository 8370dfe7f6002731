#!/bin/sh
# collect.sh PROGRAM DIRECTORY: a root file system for one program. Beside it and its libraries there is what they open
# by name: users, the order of name look-ups, OpenSSL's settings, CA certificates. libc itself has files and DNS.
# Of each Debian package that a file is from, its entry and its licence come along, so that a scanner knows what is in
# the image. The last lines printed are the list of contents.
set -eu
program=$1 root=$2

mkdir -p "$root/usr/bin" "$root/usr/lib/ssl" "$root/usr/lib64" "$root/etc/ssl/certs" "$root/var/lib/dpkg/status.d"
ln -s usr/bin usr/lib usr/lib64 "$root/"
strip -o "$root/usr/bin/spotify-auth" "$program"

files=$(ldd "$program" | awk '$1 ~ /^\// {print $1} $3 ~ /^\// {print $3}')
for file in $files; do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
done
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp -L /etc/ssl/openssl.cnf "$root/etc/ssl/"
ln -s /etc/ssl/certs /etc/ssl/openssl.cnf "$root/usr/lib/ssl/"

echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
echo 'spotify-auth:x:10001:10001::/:' >"$root/etc/passwd"
echo 'spotify-auth:x:10001:' >"$root/etc/group"

owners=$(for file in $files; do dpkg-query -S "$(readlink -f "$file")"; done | sed 's/:.*//' | sort -u)
for package in $owners ca-certificates; do
    dpkg-query -s "$package" >"$root/var/lib/dpkg/status.d/$package"
    mkdir -p "$root/usr/share/doc/$package"
    cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/"
done
chmod -R u=rwX,go=rX "$root"

# The libraries alone have to do: nothing else of this machine is there when it runs.
chroot "$root" /usr/bin/spotify-auth --version
cd "$root" && find . -type f -size +0 -printf '%9s %P\n' | sort -k2
