/* One HTTPS call, made from a fiber that waits for its end. libcurl does HTTP and TLS, libuv tells
 * it when a socket or a timer is ready; this file connects the two and sets the limits. What is
 * asked and what an answer means is for accounts.c. */
#include "spotify/upstream.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fiber.h"
#include "base/log.h"
#include "base/metrics.h"
#include "spotify/answer.h"

#define CONNECTIONS_KEPT_MAX 1024L
#define HANDLES_KEPT_MAX 512
#define HEADER_BYTES_MAX 65536

/* Thousands of calls may be parked, each with a buffer; a header line may be longer than this. */
#define READ_BUFFER_SIZE 4096L

/* Below what servers commonly keep an idle connection open, so that we seldom send into one that is
 * being closed: a POST is not sent twice. */
#define IDLE_CONNECTION_MAX_S 30L

/* What has arrived at the deadline may take curl more than one turn of the loop. */
#define LAST_TURNS_MS 10
/* A process that comes back so long after a deadline stood still, and its requests may be leaving
 * only now: their answers are waited for until so long after the deadline, which is within the
 * margin of a renewal's lease (flows/renewal_lead.c). */
#define STOOD_STILL_MS 100
#define AFTER_STANDSTILL_MS 1500

struct upstream {
    const struct settings *settings;
    uv_loop_t *loop;
    uv_timer_t timer; /* what curl asked for with its timer callback */
    CURLM *multi;     /* NULL once upstream_free was called */
    struct curl_slist *headers;
    struct transfer *transfers; /* in flight */
    int64_t in_flight;
    CURL *handles[HANDLES_KEPT_MAX];
    size_t handle_count;
    size_t users; /* timer, socket watches and transfers: the last one frees */
};

/* A socket of curl's that libuv watches. */
struct watch {
    uv_poll_t poll;
    struct upstream *upstream;
    curl_socket_t socket;
};

/* A call in flight; lives on the stack of the fiber that waits for it. */
struct transfer {
    struct upstream *upstream;
    struct fiber *fiber;
    struct upstream_answer *answer;
    CURL *easy;
    bool is_ended;
    CURLcode result; /* once it is */
    size_t header_bytes;
    bool is_post;
    bool is_sent;
    bool is_lost; /* curl wanted to send it again */
    uint64_t send_by_ms;
    struct transfer *next;
    struct transfer **link; /* what points to this one */
};

static void release(struct upstream *upstream)
{
    if (--upstream->users == 0) {
        curl_slist_free_all(upstream->headers);
        curl_global_cleanup();
        free(upstream);
    }
}

static void end_transfer(struct transfer *transfer, CURLcode result)
{
    struct upstream *upstream = transfer->upstream;
    curl_multi_remove_handle(upstream->multi, transfer->easy);
    *transfer->link = transfer->next;
    if (transfer->next) {
        transfer->next->link = transfer->link;
    }
    transfer->result = result;
    transfer->is_ended = true;
}

static void finish_transfer(struct transfer *transfer, CURLcode result)
{
    end_transfer(transfer, result);
    fiber_wake(transfer->fiber);
}

/* Let curl work on what is ready, then wake the fibers of the calls that ended. */
static void advance(struct upstream *upstream, curl_socket_t socket, int events)
{
    CURLMsg *message;
    int count;

    curl_multi_socket_action(upstream->multi, socket, events, &count);
    while ((message = curl_multi_info_read(upstream->multi, &count))) {
        struct transfer *transfer;
        if (message->msg != CURLMSG_DONE) {
            continue;
        }
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
        finish_transfer(transfer, message->data.result);
    }
}

static void on_socket_ready(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    int action = status < 0 ? CURL_CSELECT_ERR : 0;
    if (events & UV_READABLE) {
        action |= CURL_CSELECT_IN;
    }
    if (events & UV_WRITABLE) {
        action |= CURL_CSELECT_OUT;
    }
    advance(watch->upstream, watch->socket, action);
}

static void on_timer(uv_timer_t *timer)
{
    advance(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static void on_watch_closed(uv_handle_t *handle)
{
    struct watch *watch = handle->data;
    release(watch->upstream);
    free(watch);
}

static void on_timer_closed(uv_handle_t *handle)
{
    release(handle->data);
}

static struct watch *new_watch(struct upstream *upstream, curl_socket_t socket)
{
    struct watch *watch = xcalloc(1, sizeof *watch);
    watch->upstream = upstream;
    watch->socket = socket;
    watch->poll.data = watch;
    if (uv_poll_init_socket(upstream->loop, &watch->poll, socket) != 0) {
        free(watch);
        return NULL;
    }
    upstream->users++;
    curl_multi_assign(upstream->multi, socket, watch);
    return watch;
}

/* CURLMOPT_SOCKETFUNCTION: curl says what it waits for. */
static int watch_socket(CURL *easy, curl_socket_t socket, int what, void *context, void *assigned)
{
    struct upstream *upstream = context;
    struct watch *watch = assigned;
    int events = 0;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (watch) {
            uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
        }
        return 0;
    }
    if (what & CURL_POLL_IN) {
        events |= UV_READABLE;
    }
    if (what & CURL_POLL_OUT) {
        events |= UV_WRITABLE;
    }
    if (!watch) {
        watch = new_watch(upstream, socket);
    }
    return watch && uv_poll_start(&watch->poll, events, on_socket_ready) == 0 ? 0 : -1;
}

/* CURLMOPT_TIMERFUNCTION. Even 0 ms goes through the loop: curl must not be called from in here. */
static int set_timer(CURLM *multi, long timeout_ms, void *context)
{
    struct upstream *upstream = context;
    (void)multi;
    if (timeout_ms < 0) {
        uv_timer_stop(&upstream->timer);
    } else {
        uv_timer_start(&upstream->timer, on_timer, (uint64_t)timeout_ms, 0);
    }
    return 0;
}

/* CURLOPT_WRITEFUNCTION: less than was given makes curl end the transfer. */
static size_t take_body(char *bytes, size_t size, size_t count, void *context)
{
    struct transfer *transfer = context;
    size_t len = size * count;
    if (len > UPSTREAM_BODY_MAX - transfer->answer->body.len) {
        return 0;
    }
    buf_add(&transfer->answer->body, bytes, len);
    return len;
}

/* CURLOPT_HEADERFUNCTION: one whole line each, also of 1xx answers and trailers. */
static size_t take_header(char *line, size_t size, size_t count, void *context)
{
    static const char name[] = "Retry-After:";
    const size_t name_len = sizeof name - 1;
    struct transfer *transfer = context;
    size_t len = size * count;

    transfer->header_bytes += len;
    if (transfer->header_bytes > HEADER_BYTES_MAX) {
        return 0;
    }
    if (len > name_len && strncasecmp(line, name, name_len) == 0) {
        char *value = xstrndup(line + name_len, len - name_len);
        transfer->answer->retry_after_s = retry_after_parse(value, clock_unix_s());
        free(value);
    }
    return len;
}

/* CURLOPT_PREREQFUNCTION: the request is about to go out, or, when a kept connection broke before
 * an answer, to go out again. A process that stood still must not send what its caller's lease no
 * longer covers. */
static int permit_request(void *context, char *remote_ip, char *local_ip, int remote_port,
                          int local_port)
{
    struct transfer *transfer = context;
    (void)remote_ip;
    (void)local_ip;
    (void)remote_port;
    (void)local_port;
    if (clock_mono_ms() > transfer->send_by_ms) {
        transfer->answer->is_withheld = true;
        return CURL_PREREQFUNC_ABORT;
    }
    transfer->is_lost = transfer->is_post && transfer->is_sent;
    transfer->is_sent = true;
    return transfer->is_lost ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

/* CURLOPT_SOCKOPTFUNCTION: a connection whose path is dead must end with the calls on it. Else
 * HTTP/2 would lead every new call into it until TCP gives up, a quarter of an hour later. */
static int set_socket_timeout(void *context, curl_socket_t socket, curlsocktype purpose)
{
    const struct settings *settings = context;
    unsigned int timeout_ms = (unsigned int)settings->upstream_timeout_ms;
    (void)purpose;
    setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
    return CURL_SOCKOPT_OK;
}

/* What is the same for every call. */
static void set_limits(const struct settings *settings, CURL *easy)
{
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    /* A resolver that hangs is left behind; to wait for its thread would stop the loop. */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)settings->upstream_connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, READ_BUFFER_SIZE);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, set_socket_timeout);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, settings);
    curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, IDLE_CONNECTION_MAX_S);
    /* Plain http is for loopback only; the settings see to that. */
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https,http");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    /* RFC 9700 4.12: a redirect of the token endpoint would carry our credentials away. */
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    /* Not from the environment either: in CGI, HTTP_PROXY is a header of the client's. */
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    /* RFC 6749 3.2, 10.9. */
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    if (settings->upstream_ca_file) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, settings->upstream_ca_file);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
}

static void set_request(const struct upstream *upstream, CURL *easy,
                        const struct upstream_call *call)
{
    bool is_https = strncmp(call->url, "https:", 6) == 0;
    curl_easy_setopt(easy, CURLOPT_URL, call->url);
    /* A burst of calls waits for the first connection, and shares it where the server speaks
     * HTTP/2, rather than do a TLS handshake for each. Over plain http curl would wait for a whole
     * answer. */
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, is_https && !call->is_alone ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, call->is_alone ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "spotify-auth");
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, upstream->headers);
    if (call->form) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->form->len);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, buf_str(call->form));
    }
    if (call->user) {
        curl_easy_setopt(easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
        curl_easy_setopt(easy, CURLOPT_USERNAME, call->user);
        curl_easy_setopt(easy, CURLOPT_PASSWORD, call->password);
    }
    if (call->bearer) {
        curl_easy_setopt(easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, call->bearer);
    }
}

static void set_callbacks(struct transfer *transfer)
{
    CURL *easy = transfer->easy;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, permit_request);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer);
}

static CURL *take_handle(struct upstream *upstream)
{
    CURL *easy =
        upstream->handle_count ? upstream->handles[--upstream->handle_count] : curl_easy_init();
    if (!easy) {
        abort(); /* out of memory */
    }
    return easy;
}

static void put_handle(struct upstream *upstream, CURL *easy)
{
    if (!upstream->multi || upstream->handle_count == HANDLES_KEPT_MAX) {
        curl_easy_cleanup(easy);
        return;
    }
    curl_easy_reset(easy);
    upstream->handles[upstream->handle_count++] = easy;
}

/* Wait until advance or upstream_free says that it is over, or its time is. That is not for curl to
 * say: it looks at the clock before it reads, and a process that stood still would throw away an
 * answer that came in time, and under rotation the session with it. */
static void await_end(struct transfer *transfer, uint64_t timeout_ms)
{
    uint64_t deadline_ms = clock_mono_ms() + timeout_ms;
    fiber_park_for(timeout_ms);
    if (!transfer->is_ended) {
        uint64_t late_ms = clock_mono_ms() - deadline_ms;
        bool stood_still = late_ms > STOOD_STILL_MS && late_ms < AFTER_STANDSTILL_MS;
        fiber_park_for(stood_still ? AFTER_STANDSTILL_MS - late_ms : LAST_TURNS_MS);
    }
    if (!transfer->is_ended) {
        end_transfer(transfer, CURLE_OPERATION_TIMEDOUT);
    }
}

/* Hand the call to curl, and park until it is over. */
static void run_transfer(struct transfer *transfer, uint64_t timeout_ms)
{
    struct upstream *upstream = transfer->upstream;

    transfer->next = upstream->transfers;
    transfer->link = &upstream->transfers;
    if (transfer->next) {
        transfer->next->link = &transfer->next;
    }
    upstream->transfers = transfer;
    upstream->in_flight++;
    metrics_add(METRIC_CALLS_IN_FLIGHT, 0, 1);
    upstream->users++;
    /* It only arms the timer; the first byte moves from the loop, when this fiber is parked. */
    if (curl_multi_add_handle(upstream->multi, transfer->easy) != CURLM_OK) {
        abort(); /* out of memory */
    }
    await_end(transfer, timeout_ms);
    upstream->in_flight--;
    metrics_add(METRIC_CALLS_IN_FLIGHT, 0, -1);
}

static enum err report(const struct transfer *transfer, const char *name, uint64_t waited_us)
{
    struct log_context *context = log_context();
    if (context) {
        context->upstream_us += waited_us;
    }
    metrics_count_call(name, transfer->result == CURLE_OK ? transfer->answer->status : 0,
                       waited_us);
    if (transfer->result == CURLE_OK) {
        log_info("upstream call", LOG_TEXT("call", name),
                 LOG_NUMBER("status", transfer->answer->status),
                 LOG_NUMBER("ms", waited_us / 1000));
        return OK;
    }
    log_warn("upstream call failed", LOG_TEXT("call", name),
             LOG_TEXT("problem", transfer->is_lost ? "connection lost before an answer"
                                                   : curl_easy_strerror(transfer->result)),
             LOG_NUMBER("ms", waited_us / 1000));
    return ERR_UPSTREAM;
}

enum err upstream_call(struct upstream *upstream, const struct upstream_call *call,
                       struct upstream_answer *answer)
{
    struct transfer transfer = {.upstream = upstream,
                                .fiber = fiber_self(),
                                .answer = answer,
                                .is_post = call->form != NULL};
    uint64_t started = clock_mono_us();
    long status = 0;
    enum err err;

    *answer = (struct upstream_answer){.retry_after_s = -1};
    if (upstream->in_flight >= upstream->settings->upstream_max_in_flight) {
        log_warn("upstream busy", LOG_TEXT("call", call->name),
                 LOG_NUMBER("in_flight", upstream->in_flight));
        metrics_count_call_refused(call->name, METRIC_ANSWER_BUSY);
        return ERR_UPSTREAM_BUSY;
    }
    transfer.easy = take_handle(upstream);
    transfer.send_by_ms = clock_mono_ms() + (uint64_t)call->timeout_ms;
    set_limits(upstream->settings, transfer.easy);
    set_request(upstream, transfer.easy, call);
    set_callbacks(&transfer);
    run_transfer(&transfer, (uint64_t)call->timeout_ms);

    curl_easy_getinfo(transfer.easy, CURLINFO_RESPONSE_CODE, &status);
    answer->status = (int)status;
    answer->is_unsent = !transfer.is_sent && (transfer.result == CURLE_COULDNT_RESOLVE_HOST ||
                                              transfer.result == CURLE_COULDNT_CONNECT ||
                                              transfer.result == CURLE_SSL_CONNECT_ERROR);
    err = report(&transfer, call->name, clock_mono_us() - started);
    put_handle(upstream, transfer.easy);
    release(upstream);
    return err;
}

void upstream_answer_clear(struct upstream_answer *answer)
{
    buf_clear(&answer->body);
    *answer = (struct upstream_answer){.retry_after_s = -1};
}

struct upstream *upstream_new(uv_loop_t *loop, const struct settings *settings)
{
    struct upstream *upstream = xcalloc(1, sizeof *upstream);

    upstream->settings = settings;
    upstream->loop = loop;
    upstream->users = 1;
    uv_timer_init(loop, &upstream->timer);
    upstream->timer.data = upstream;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    upstream->multi = curl_multi_init();
    upstream->headers = curl_slist_append(NULL, "Accept: application/json");
    if (!upstream->multi || !upstream->headers ||
        !curl_slist_append(upstream->headers, "Expect:")) {
        abort(); /* out of memory */
    }
    curl_multi_setopt(upstream->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(upstream->multi, CURLMOPT_SOCKETDATA, upstream);
    curl_multi_setopt(upstream->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(upstream->multi, CURLMOPT_TIMERDATA, upstream);
    curl_multi_setopt(upstream->multi, CURLMOPT_MAXCONNECTS, CONNECTIONS_KEPT_MAX);
    return upstream;
}

void upstream_free(struct upstream *upstream)
{
    if (!upstream) {
        return;
    }
    while (upstream->transfers) {
        finish_transfer(upstream->transfers, CURLE_ABORTED_BY_CALLBACK);
    }
    while (upstream->handle_count) {
        curl_easy_cleanup(upstream->handles[--upstream->handle_count]);
    }
    curl_multi_cleanup(upstream->multi);
    upstream->multi = NULL;
    uv_close((uv_handle_t *)&upstream->timer, on_timer_closed);
}
