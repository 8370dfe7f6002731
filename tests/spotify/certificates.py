"""Certificates for TLS tests, made with the openssl command."""

import subprocess
from pathlib import Path

EXTENSIONS = """basicConstraints=CA:FALSE
extendedKeyUsage=serverAuth,clientAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
subjectAltName={names}
"""


def make(folder, names="IP:127.0.0.1,IP:::1,DNS:localhost"):
    """Makes in `folder` the CA `ca.pem` and server certificates NAME.pem with keys NAME.key:
    `good`, `wrong_name` (for another host), `expired`, and `unknown_ca` (sound, but signed by a CA
    that is not ca.pem). Returns {NAME: (certificate, key)}, and "ca": its path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    authority(folder, "ca")
    authority(folder, "other_ca")
    result = {"ca": str(folder / "ca.pem")}
    for name, issuer, host, days in (
        ("good", "ca", names, 2),
        ("wrong_name", "ca", "DNS:elsewhere.example", 2),
        ("expired", "ca", names, 0),
        ("unknown_ca", "other_ca", names, 2),
    ):
        result[name] = certificate(folder, name, issuer, host, days)
    return result


def openssl(folder, *arguments):
    subprocess.run(
        ["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60
    )


def new_key(folder, name):
    curve = "ec_paramgen_curve:P-256"
    openssl(folder, "genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", f"{name}.key")


def authority(folder, name):
    new_key(folder, name)
    openssl(
        folder, "req", "-x509", "-new", "-key", f"{name}.key", "-out", f"{name}.pem",
        "-days", "2", "-subj", f"/CN=Simulated Spotify {name}",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign",
    )


def certificate(folder, name, issuer, names, days, common_name=None):
    new_key(folder, name)
    (folder / f"{name}.ext").write_text(EXTENSIONS.format(names=names))
    openssl(folder, "req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr",
            "-subj", f"/CN={common_name or f'Simulated Spotify {name}'}")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.pem",
            "-CAkey", f"{issuer}.key", "-CAcreateserial", "-extfile", f"{name}.ext",
            "-days", str(days), "-out", f"{name}.pem")
    return str(folder / f"{name}.pem"), str(folder / f"{name}.key")
