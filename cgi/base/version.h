/* The program's version, for --version and the first log line. */
#ifndef BASE_VERSION_H
#define BASE_VERSION_H

#define SPOTIFY_AUTH_VERSION "0.1.0"

#endif
