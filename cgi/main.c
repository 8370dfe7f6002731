/* The program: reads its arguments and hands over to whoever does the work. Without arguments it is
 * a FastCGI service (supervisor.c), or plain CGI where a web server started it for one request. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/seal.h"
#include "base/version.h"
#include "process/configure.h"
#include "process/health.h"
#include "process/listen.h"
#include "process/supervisor.h"
#include "process/worker.h"

static const char USAGE[] =
    "Usage: spotify-auth [OPTION]\n"
    "\n"
    "Without an option: serve FastCGI at LISTEN, or the one request of a CGI environment.\n"
    "\n"
    "  --check            check all settings, report every problem; connects to nothing\n"
    "  --help             this text and the settings\n"
    "  --new-key          print a fresh entry for SESSION_KEYS\n"
    "  --new-client NAME  print a fresh secret for a service client, and its entry for\n"
    "                     SERVICE_CLIENTS\n"
    "  --health           ask /readyz at LISTEN, print the answer\n"
    "  --version          print the version\n";

static const char CGI_ERROR[] =
    "Status: 500 Internal Server Error\r\n"
    "Content-Type: application/json\r\n"
    "Cache-Control: no-store\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "\r\n"
    "{\"error\":\"server_error\",\"error_description\":\"The service is not configured.\"}";

static int usage_error(void)
{
    fputs(USAGE, stderr);
    return 2;
}

/* The exit code of an option that prints: what could not be written was not done. */
static int printed(void)
{
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}

static int run_check(void)
{
    struct settings settings;
    int problems = configure_load(&settings, stdout);

    settings_clear(&settings);
    if (problems == 0) {
        puts("ok");
    }
    return printed() == 0 && problems == 0 ? 0 : 1;
}

static int run_help(void)
{
    fputs(USAGE, stdout);
    fputs("\nSettings come from the environment. NAME_FILE may name a file that holds the value of "
          "NAME.\n\n",
          stdout);
    settings_print_table(stdout);
    return printed();
}

static int run_version(void)
{
    puts("spotify-auth " SPOTIFY_AUTH_VERSION);
    return printed();
}

static int run_new_key(void)
{
    struct buf entry = {0};

    key_ring_new_entry(&entry);
    puts(buf_str(&entry));
    buf_clear(&entry);
    return printed();
}

static int run_new_client(const char *name)
{
    struct secret secret;
    char text[SECRET_TEXT_LEN + 1], hash[PKCE_LEN + 1];

    if (!settings_is_client_name(name, strlen(name))) {
        fputs("NAME is 1 to 64 of A-Za-z0-9_-\n", stderr);
        return 2;
    }
    secret_new(&secret);
    secret_format(&secret, text);
    /* The S256 challenge is base64url(SHA-256(text)), which is what SERVICE_CLIENTS holds. */
    pkce_challenge(text, hash);
    printf("%s\n%s:%s\n", text, name, hash);
    fputs("The first line is the secret, for the client alone; the second goes into "
          "SERVICE_CLIENTS.\n",
          stderr);
    secret_wipe(&secret);
    explicit_bzero(text, sizeof(text));
    return printed();
}

/* Other settings than LISTEN do not matter here, and may be out of this caller's reach. */
static int run_health(void)
{
    struct settings settings;
    char *problems = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&problems, &len);
    int code = 1;

    if (out == NULL) {
        abort();
    }
    settings_load(&settings, out);
    fclose(out);
    if (settings.listen.socket_path != NULL || settings.listen.host != NULL) {
        code = health_check(&settings.listen);
    } else {
        fputs(problems, stderr);
    }
    free(problems);
    settings_clear(&settings);
    return code;
}

static int run_cgi(void)
{
    struct settings settings;
    int code = 1;

    if (configure_load(&settings, stderr) > 0) {
        fputs(CGI_ERROR, stdout);
    } else {
        log_set_level((enum log_level)settings.log_level);
        code = worker_run_cgi(&settings);
    }
    settings_clear(&settings);
    return printed() == 0 ? code : 1;
}

static int run_service(void)
{
    struct settings settings;

    if (configure_load(&settings, stderr) > 0) {
        settings_clear(&settings);
        return 1;
    }
    return supervisor_run(&settings);
}

/* With one of the three standard descriptors closed, a socket would take its number, and log lines
 * or an answer would be written into it. */
static void fill_standard_descriptors(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        close(fd);
    }
}

/* A core dump would hold keys and tokens. Of 1 byte no file is made, and none is handed to a
 * program either, which 0 would not stop (core(5)). */
static void forbid_core_dumps(void)
{
    const struct rlimit smallest = {1, 1};

    setrlimit(RLIMIT_CORE, &smallest);
}

int main(int argc, char **argv)
{
    forbid_core_dumps();
    fill_standard_descriptors();
    seal_init();
    /* Before any argument: a web server makes arguments of a query string (RFC 3875 4.4). */
    if (getenv("GATEWAY_INTERFACE") != NULL && !listen_inherited()) {
        return run_cgi();
    }
    if (argc == 1) {
        return run_service();
    }
    if (argc == 3 && strcmp(argv[1], "--new-client") == 0) {
        return run_new_client(argv[2]);
    }
    if (argc != 2) {
        return usage_error();
    }
    if (strcmp(argv[1], "--check") == 0) {
        return run_check();
    }
    if (strcmp(argv[1], "--help") == 0) {
        return run_help();
    }
    if (strcmp(argv[1], "--new-key") == 0) {
        return run_new_key();
    }
    if (strcmp(argv[1], "--health") == 0) {
        return run_health();
    }
    if (strcmp(argv[1], "--version") == 0) {
        return run_version();
    }
    return usage_error();
}
