#define _GNU_SOURCE
#include "house.h"

#include "base/clock.h"
#include "base/hex.h"
#include "silo/actions.h"
#include "wire/base64.h"
#include "wire/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TURNS = 6, PATIENCE = 400, WAIT_MS = 1, DIAL_WAIT_MS = 10000,
       SOURCES = 250 };

/* In the place of the silo's own table (silo/actions.c): nothing there streams both ways, or as
 * long as a test may like. */
static const struct action stream_actions[] = {
    {.name = "stream.put", .method = "PUT", .path = "/v1/streams/{id}", .resource = "stream",
     .scope = SCOPE_MEMORY_WRITE, .mutates = true, .body = ACTION_BODY_BYTES,
     .body_max = STREAM_BODY_MAX, .streams = ACTION_STREAMS_IN},
    {.name = "stream.get", .method = "GET", .path = "/v1/streams/{id}", .resource = "stream",
     .scope = SCOPE_MEMORY_READ, .streams = ACTION_STREAMS_OUT},
    {.name = "stream.batch", .method = "POST", .path = "/v1/streams", .resource = "stream",
     .scope = SCOPE_MEMORY_WRITE, .mutates = true, .body = ACTION_BODY_NDJSON,
     .body_max = STREAM_BATCH_MAX, .streams = ACTION_STREAMS_IN | ACTION_STREAMS_OUT},
};
static const struct action_set sets[] = {
    {"memory", memory_actions, MEMORY_ACTIONS},
    {"tenant", tenant_actions, TENANT_ACTIONS},
    {"stream", stream_actions, sizeof stream_actions / sizeof *stream_actions},
};
const struct action_table action_table = {sets, sizeof sets / sizeof *sets};

/* The program is linked with --wrap: time is ours. */
static int64_t now_us = 1000000;
int64_t __wrap_clock_monotonic_us(void);
int64_t __wrap_clock_monotonic_us(void)
{
    return now_us;
}

static int listen_here(char port[6])
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(fd, 1024), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    snprintf(port, 6, "%u", ntohs(address.sin_port));
    return fd;
}

static void put_options(struct buffer *body, const struct house_options *options)
{
    buffer_put_u8(body, 0); /* TLS */
    buffer_put_text_field(body, options->domain ? options->domain : "");
    buffer_put_text_field(body, options->region ? options->region : "");
    buffer_put_u8(body, !options->no_tenant_labels);
    buffer_put_u32(body, options->connections_per_address);
    buffer_put_u16(body, options->proxy ? 1 : 0);
    if (options->proxy) {
        uint8_t bytes[ADDRESS_BYTES] = {127, 0, 0, 1};
        buffer_put_u8(body, 4);
        buffer_put(body, SPAN_OF(bytes));
        buffer_put_u8(body, 32);
    }
}

static void open_gateway(struct house *house, const struct house_options *options)
{
    struct fault fault;
    int supervisor[2], control[2];
    uint8_t storage[1024];
    struct gateway_start start;
    struct ipc_message message = {.type = MESSAGE_START, .fd_count = 4, .fds = {-1, -1, -1, -1}};
    struct buffer body = buffer_over(storage, sizeof storage);
    assert_int_equal(ipc_pair(supervisor, &fault), OK);
    assert_int_equal(ipc_pair(control, &fault), OK);
    buffer_put_u32(&body, 0);
    buffer_put_u32(&body, 1);
    buffer_put(&body, SPAN_OF(house->mint.public_key)); /* the platform's: not used here */
    buffer_put(&body, SPAN_OF(house->mint.public_key));
    put_options(&body, options);
    message.body = buffer_span(&body);
    message.fds[0] = listen_here(house->port);
    message.fds[1] = control[0];
    message.fds[2] = dup(control[0]);
    message.fds[3] = listen_here(house->ops_port);
    assert_int_equal(gateway_start_get(&start, &message, &fault), OK);
    assert_int_equal(gateway_create(&house->gateway, house->loop, supervisor[0], &start,
                                    house->stats, &fault), OK);
    gateway_start_close(&start);
    house->supervisor = supervisor[1];
    house->control = control[1];
}

int house_setup(void **state)
{
    const struct house_options plain = {0};
    return house_setup_as(state, &plain);
}

int house_setup_as(void **state, const struct house_options *options)
{
    struct fault fault;
    struct house *house = calloc(1, sizeof *house);
    assert_non_null(house);
    assert_int_equal(crypt_start(&fault), OK);
    house->stats = calloc(1, sizeof *house->stats);
    house->mint = mint_open();
    house->token = buffer_of(TOKEN_MAX);
    assert_int_equal(loop_create(&house->loop, &fault), OK);
    open_gateway(house, options);
    house_token(house, TENANT, "memory:read memory:write tenant:read");
    *state = house;
    return 0;
}

int house_teardown(void **state)
{
    struct house *house = *state;
    gateway_free(house->gateway);
    loop_free(house->loop);
    mint_close(&house->mint);
    buffer_free(&house->token);
    close(house->supervisor);
    close(house->control);
    free(house->stats);
    free(house);
    return 0;
}

static void turn(struct house *house, int timeout_ms)
{
    struct fault fault;
    assert_int_equal(loop_turn(house->loop, timeout_ms, &fault), OK);
}

void house_turn(struct house *house)
{
    for (int i = 0; i < TURNS; i++)
        turn(house, 0);
}

void house_wait(struct house *house, int64_t ms)
{
    house_turn(house); /* what happened until now, happened before */
    now_us += ms * 1000;
    house_turn(house);
}

void house_pass(int64_t ms)
{
    now_us += ms * 1000;
}

bool house_ended(struct house *house, status *why)
{
    struct fault fault;
    house_turn(house);
    *why = gateway_outcome(house->gateway, &fault);
    return *why != AGAIN;
}

const char *house_token(struct house *house, const char *tenant, const char *scope)
{
    struct token_request request = mint_request();
    request.tenant = span_of_text(tenant);
    request.scope = span_of_text(scope);
    mint_token(&house->token, &house->mint, &request, clock_wall_us() / 1000000);
    buffer_put_u8(&house->token, 0);
    return (const char *)house->token.data;
}

static struct signer *foreign_signer(uint8_t key)
{
    uint8_t seed[SIGN_SEED_BYTES] = {0xF0, key};
    struct signer *signer;
    struct fault fault;
    assert_int_equal(signer_create(&signer, seed, &fault), OK);
    return signer;
}

struct token_issuer house_issuer(const char *iss, const char *tenant, uint8_t key)
{
    struct token_issuer issuer = {
        .aud = "bulkhead", .tenant_claim = "tenant_id", .user_claim = "sub",
        .scope_claim = "scope", .clearance_claim = "clearance", .lifetime_max_seconds = 3600,
        .early_seconds = 30, .late_seconds = 30,
        .keys = {{.id = "k1", .alg = TOKEN_EDDSA, .length = SIGN_PUBLIC_BYTES}}, .key_count = 1};
    struct signer *signer = foreign_signer(key);
    signer_public(issuer.keys[0].public_key, signer);
    signer_free(signer);
    assert_true(span_to_text(issuer.iss, sizeof issuer.iss, span_of_text(iss)));
    assert_true(span_to_text(issuer.tenant, sizeof issuer.tenant, span_of_text(tenant)));
    return issuer;
}

const char *house_foreign(struct house *house, const char *iss, uint8_t key, const char *more)
{
    uint8_t signature[SIGNATURE_BYTES];
    struct buffer *out = &house->token, payload = buffer_of(TOKEN_MAX);
    struct signer *signer = foreign_signer(key);
    struct fault fault;
    int64_t now = clock_wall_us() / 1000000;
    buffer_printf(&payload, "{\"iss\":\"%s\",\"aud\":\"bulkhead\",\"iat\":%lld,\"exp\":%lld,%s}",
                  iss, (long long)now, (long long)now + 600, more);
    buffer_clear(out);
    base64url_put(out, SPAN("{\"alg\":\"EdDSA\",\"typ\":\"JWT\",\"kid\":\"k1\"}"));
    buffer_put_text(out, ".");
    base64url_put(out, buffer_span(&payload));
    assert_int_equal(signer_sign(signature, signer, buffer_span(out), &fault), OK);
    token_signature_put(out, signature);
    buffer_put_u8(out, 0);
    assert_false(out->failed);
    buffer_free(&payload);
    signer_free(signer);
    return (const char *)out->data;
}

static int end_of_connect(int fd)
{
    struct pollfd connects = {.fd = fd, .events = POLLOUT};
    int why = ETIMEDOUT;
    socklen_t length = sizeof why;
    while (poll(&connects, 1, DIAL_WAIT_MS) < 0 && errno == EINTR)
        ;
    if (connects.revents)
        assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &length), 0);
    return why;
}

/* -1: as errno says. */
static int dial_from(uint32_t source, const struct sockaddr_in *to)
{
    const struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(source)};
    const int later = 1; /* the port is chosen by connect, which knows whom it is for */
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &later, sizeof later), 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&from, sizeof from), 0);
    int why = connect(fd, (const struct sockaddr *)to, sizeof *to) == 0 ? 0 : errno;
    if (why == EINTR) /* a fuzzer's alarm: it goes on without us */
        why = end_of_connect(fd);
    if (why == 0)
        return fd;
    close(fd);
    errno = why;
    return -1;
}

static int dial(const char *port)
{
    static uint32_t source = INADDR_LOOPBACK;
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                        .sin_port = htons((uint16_t)strtoul(port, NULL, 10))};
    int fd = dial_from(source, &address);
    /* thousands of calls a second under fuzzing: all ports of an address wait for their minute */
    while (fd < 0 && errno == EADDRNOTAVAIL && source < INADDR_LOOPBACK + SOURCES)
        fd = dial_from(++source, &address);
    if (fd < 0)
        fail_msg("dial: %s", strerror(errno));
    return fd;
}

int house_dial(struct house *house)
{
    int fd = dial(house->port);
    house_turn(house);
    return fd;
}

int house_dial_ops(struct house *house)
{
    int fd = dial(house->ops_port);
    house_turn(house);
    return fd;
}

void house_write(struct house *house, int client, struct span bytes)
{
    for (int patience = PATIENCE; bytes.length && patience > 0;) {
        ssize_t sent = send(client, bytes.data, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            bytes = (struct span){bytes.data + sent, bytes.length - (size_t)sent};
        } else if (errno != EAGAIN) {
            return; /* the gateway has closed: what it said is asked for next */
        } else {
            patience--;
        }
        turn(house, 0);
    }
    house_turn(house);
}

void house_say(struct house *house, int client, const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    assert_true(length >= 0);
    house_write(house, client, (struct span){(const uint8_t *)text, (size_t)length});
    free(text);
}

void house_get_host(struct house *house, int client, const char *path, const char *host)
{
    house_say(house, client, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n",
              path, host, (const char *)house->token.data);
}

void house_get(struct house *house, int client, const char *path)
{
    house_get_host(house, client, path, "x");
}

void house_post(struct house *house, int client, const char *path, const char *body)
{
    house_say(house, client,
              "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
              "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
              path, (const char *)house->token.data, strlen(body), body);
}

/* One byte; false at the end. */
static bool read_byte(struct house *house, int client, uint8_t *ret)
{
    for (int patience = PATIENCE; patience > 0; patience--) {
        ssize_t got = recv(client, ret, 1, MSG_DONTWAIT);
        if (got == 1)
            return true;
        if (got == 0 || errno != EAGAIN)
            return false;
        turn(house, patience < PATIENCE - TURNS ? WAIT_MS : 0);
    }
    fail_msg("no reply came");
    return false;
}

static void read_body(struct house *house, int client, struct reply *reply, size_t length)
{
    reply->body = buffer_of(length + 1);
    while (reply->body.length < length) {
        uint8_t *room = buffer_reserve(&reply->body, length - reply->body.length);
        ssize_t got = recv(client, room, length - reply->body.length, MSG_DONTWAIT);
        if (got > 0) {
            buffer_advance(&reply->body, (size_t)got);
            continue;
        }
        if (got == 0)
            fail_msg("the body ends early");
        turn(house, WAIT_MS);
    }
}

const struct reply *house_reply(struct house *house, int client)
{
    static struct reply reply;
    size_t length = 0;
    buffer_free(&reply.body);
    reply = (struct reply){0};
    while (length < 4 || strcmp(reply.head + length - 4, "\r\n\r\n") != 0) {
        uint8_t byte;
        assert_true(length < sizeof reply.head - 1);
        if (!read_byte(house, client, &byte))
            fail_msg("closed after %zu bytes of a head", length);
        reply.head[length++] = (char)byte;
    }
    assert_memory_equal(reply.head, "HTTP/1.1 ", 9);
    reply.status = (int)strtol(reply.head + 9, NULL, 10);
    const char *announced = reply_header(&reply, "Content-Length");
    if (announced && reply.status != 100)
        read_body(house, client, &reply, strtoul(announced, NULL, 10));
    return &reply;
}

void house_read(struct house *house, int client, const char *text)
{
    for (const char *at = text; *at; at++) {
        uint8_t byte;
        if (!read_byte(house, client, &byte))
            fail_msg("closed before \"%s\"", at);
        if (byte != (uint8_t)*at)
            fail_msg("'%c' where \"%s\" was due", byte, at);
    }
}

size_t house_drink(struct house *house, int client)
{
    static uint8_t bytes[KIB(64)];
    size_t total = 0;
    for (int patience = TURNS; patience > 0;) {
        ssize_t got = recv(client, bytes, sizeof bytes, MSG_DONTWAIT);
        total += got > 0 ? (size_t)got : 0;
        patience = got > 0 ? TURNS : patience - 1;
        turn(house, 0);
    }
    return total;
}

const char *reply_header(const struct reply *reply, const char *name)
{
    static char value[2][1024];
    static int which;
    char wanted[128];
    snprintf(wanted, sizeof wanted, "\r\n%s: ", name);
    const char *at = strstr(reply->head, wanted);
    if (!at)
        return NULL;
    at += strlen(wanted);
    which = !which;
    snprintf(value[which], sizeof value[which], "%.*s", (int)strcspn(at, "\r"), at);
    return value[which];
}

void house_expect(struct house *house, int client, int http_status, const char *code)
{
    char wanted[64];
    const struct reply *reply = house_reply(house, client);
    if (reply->status != http_status)
        fail_msg("status %d, expected %d: %.*s", reply->status, http_status,
                 SPAN_ARG(buffer_span(&reply->body)));
    assert_non_null(reply_header(reply, "Traceparent"));
    if (!code)
        return;
    assert_string_equal(reply_header(reply, "Content-Type"), "application/problem+json");
    snprintf(wanted, sizeof wanted, "\"code\":\"%s\"", code);
    if (!memmem(reply->body.data, reply->body.length, wanted, strlen(wanted)))
        fail_msg("no %s in %.*s", wanted, SPAN_ARG(buffer_span(&reply->body)));
}

bool house_silent(struct house *house, int client)
{
    uint8_t byte;
    house_turn(house);
    return recv(client, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

bool house_closed(struct house *house, int client)
{
    uint8_t bytes[4096];
    for (int patience = PATIENCE; patience > 0; patience--) {
        ssize_t got = recv(client, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            return true;
        turn(house, patience < PATIENCE - TURNS ? WAIT_MS : 0);
    }
    return false;
}

void house_settle(struct house *house)
{
    _Atomic uint64_t *open = &house->stats->slots[1].connections_open;
    house_turn(house);
    for (int patience = PATIENCE; *open > 0 && patience > 0; patience--)
        turn(house, WAIT_MS);
}

struct ipc_message house_next(struct house *house, int channel, uint32_t type)
{
    struct ipc_message message = {0};
    struct fault fault;
    for (int patience = PATIENCE; patience > 0; patience--) {
        status came = ipc_receive(&message, channel, house->storage, &fault);
        if (came == OK) {
            assert_int_equal(message.type, type);
            return message;
        }
        assert_int_equal(came, AGAIN);
        turn(house, patience < PATIENCE - TURNS ? WAIT_MS : 0);
    }
    fail_msg("message %#x did not come", type);
    return message;
}

bool house_quiet(struct house *house, int channel)
{
    struct ipc_message message;
    struct fault fault;
    house_turn(house);
    return ipc_receive(&message, channel, house->storage, &fault) == AGAIN;
}

static void get_id(uint8_t ret[TENANT_ID_BYTES], const char *tenant)
{
    struct fault fault;
    assert_int_equal(hex_decode(ret, TENANT_ID_BYTES, span_of_text(tenant), "tenant", &fault), OK);
}

void cell_send(int cell, uint32_t type, uint32_t id, struct span body)
{
    struct fault fault;
    assert_int_equal(ipc_send(cell, type, id, body, NULL, 0, &fault), OK);
}

void house_found(struct house *house, uint32_t id, const char *tenant, uint8_t state)
{
    uint8_t storage[128], tenant_id[TENANT_ID_BYTES];
    struct buffer body = buffer_over(storage, sizeof storage);
    get_id(tenant_id, tenant);
    reply_put_head(&body, OK, "");
    buffer_put(&body, SPAN_OF(tenant_id));
    buffer_put_u8(&body, state);
    buffer_put_u64(&body, 1000000);
    buffer_put_field(&body, (struct span){0}); /* no charter, or the known one */
    cell_send(house->control, MESSAGE_REPLY, id, buffer_span(&body));
    house_turn(house);
}

struct charter house_charter(const char *tenant, const char *name, uint64_t sequence)
{
    struct charter charter = {.sequence = sequence, .issued_at = 1000};
    charter.posture = posture_defaults(TIER_STANDARD);
    charter.posture.created_at_us = 1000000;
    assert_true(span_to_text(charter.posture.name, sizeof charter.posture.name,
                             span_of_text(name)));
    get_id(charter.id, tenant);
    return charter;
}

struct charter house_platform_charter(uint64_t sequence)
{
    return (struct charter){.sequence = sequence, .issued_at = 1000};
}

void house_put_charter(struct buffer *out, struct house *house, const struct charter *charter)
{
    struct fault fault = {0};
    struct buffer document = buffer_of(CHARTER_MAX), bytes = buffer_of(CHARTER_SIGNED_MAX);
    struct signed_charter made = {.sequence = charter->sequence};
    if (charter_put(&document, charter, &fault) != OK)
        fail_msg("charter: %s", fault.detail);
    for (size_t i = 0; i < TENANT_ID_BYTES; i++)
        made.id[i] = charter->id[i];
    made.document = buffer_span(&document);
    charter_signed_bytes(&bytes, made.id, made.sequence, made.document);
    assert_int_equal(signer_sign(made.signature, house->mint.signer, buffer_span(&bytes), &fault),
                     OK);
    signed_charter_put(out, &made);
    buffer_free(&document);
    buffer_free(&bytes);
}

/* given: the signed charter, whole; empty for none. */
void house_found_with(struct house *house, uint32_t id, const char *tenant, uint8_t state,
                      struct span given)
{
    uint8_t tenant_id[TENANT_ID_BYTES];
    struct buffer body = buffer_of(IPC_BODY_MAX);
    get_id(tenant_id, tenant);
    reply_put_head(&body, OK, "");
    buffer_put(&body, SPAN_OF(tenant_id));
    buffer_put_u8(&body, state);
    buffer_put_u64(&body, 1000000);
    buffer_put_field(&body, given);
    assert_false(body.failed);
    cell_send(house->control, MESSAGE_REPLY, id, buffer_span(&body));
    buffer_free(&body);
    house_turn(house);
}

void house_find_with(struct house *house, const char *text, uint64_t known,
                     const struct charter *charter)
{
    char tenant[TENANT_ID_TEXT];
    struct buffer given = buffer_of(IPC_BODY_MAX);
    uint32_t id = house_asked(house, text, known);
    hex_encode(tenant, SPAN_OF(charter->id));
    house_put_charter(&given, house, charter);
    house_found_with(house, id, tenant, 1, buffer_span(&given));
    buffer_free(&given);
}

void house_platform_given(struct house *house, struct span given, bool host_routes,
                          const char *claim)
{
    struct buffer body = buffer_of(IPC_BODY_MAX);
    buffer_put_field(&body, given);
    buffer_put_u8(&body, host_routes);
    buffer_put_u16(&body, claim ? 1 : 0);
    if (claim)
        buffer_put_text_field(&body, claim);
    cell_send(house->control, MESSAGE_PLATFORM, 0, buffer_span(&body));
    buffer_free(&body);
    house_turn(house);
}

void house_platform(struct house *house, const struct charter *charter, bool host_routes,
                    const char *claim)
{
    struct buffer given = buffer_of(IPC_BODY_MAX);
    if (charter)
        house_put_charter(&given, house, charter);
    house_platform_given(house, buffer_span(&given), host_routes, claim);
    buffer_free(&given);
}

void house_reply_to(struct house *house, uint32_t id, status code)
{
    struct fault fault;
    assert_int_equal(reply_send(house->control, id, code, "secret reasons", &fault), OK);
    house_turn(house);
}

uint32_t house_asked(struct house *house, const char *text, uint64_t known)
{
    struct ipc_message asked = house_next(house, house->control, MESSAGE_TENANT_FIND);
    struct cursor cursor = cursor_over(asked.body);
    char came[512];
    uint64_t sequence;
    struct fault fault;
    assert_int_equal(cursor_text(came, sizeof came, &cursor, "tenant", &fault), OK);
    assert_int_equal(cursor_u64(&sequence, &cursor, &fault), OK);
    assert_int_equal(cursor_end(&cursor, &fault), OK);
    assert_string_equal(came, text);
    assert_int_equal(sequence, known);
    return asked.id;
}

void house_find(struct house *house, const char *text, uint8_t state)
{
    uint32_t id = house_asked(house, text, 0);
    if (state == 0)
        house_reply_to(house, id, NOT_FOUND);
    else
        house_found(house, id, strlen(text) == 32 ? text : TENANT, state);
}

int house_give_cell(struct house *house, const char *tenant)
{
    int ends[2];
    uint8_t id[TENANT_ID_BYTES];
    struct fault fault;
    get_id(id, tenant);
    assert_int_equal(ipc_pair(ends, &fault), OK);
    assert_int_equal(ipc_send(house->supervisor, MESSAGE_GATEWAY_CELL, 0, SPAN_OF(id), &ends[1],
                              1, &fault), OK);
    close(ends[1]);
    return ends[0];
}

int house_wake(struct house *house, const char *tenant)
{
    struct ipc_message asked = house_next(house, house->control, MESSAGE_TENANT_WAKE);
    uint8_t id[TENANT_ID_BYTES];
    get_id(id, tenant);
    assert_true(span_equal(asked.body, SPAN_OF(id)));
    int cell = house_give_cell(house, tenant);
    house_reply_to(house, asked.id, OK);
    return cell;
}

void house_changed(struct house *house, const char *tenant)
{
    uint8_t id[TENANT_ID_BYTES];
    get_id(id, tenant);
    cell_send(house->control, MESSAGE_TENANT_CHANGED, 0, SPAN_OF(id));
    house_turn(house);
}

void house_new_control(struct house *house)
{
    int ends[2];
    uint8_t storage[8];
    struct fault fault;
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u8(&body, CHANNEL_CONTROL);
    buffer_put_u32(&body, 0);
    assert_int_equal(ipc_pair(ends, &fault), OK);
    assert_int_equal(ipc_send(house->supervisor, MESSAGE_CHANNEL, 0, buffer_span(&body), &ends[1],
                              1, &fault), OK);
    close(ends[1]);
    close(house->control);
    house->control = ends[0];
    house_turn(house);
}

struct relayed house_request(struct house *house, int cell)
{
    struct ipc_message message = house_next(house, cell, MESSAGE_RELAY_REQUEST);
    struct cursor cursor = cursor_over(message.body);
    struct relayed relayed = {.id = message.id};
    struct fault fault;
    uint64_t length;
    assert_int_equal(cursor_u8(&relayed.flags, &cursor, &fault), OK);
    assert_int_equal(cursor_copy(relayed.trace_id, &cursor, TRACE_ID_BYTES, &fault), OK);
    assert_int_equal(cursor_field(&relayed.method, &cursor, 64, "method", &fault), OK);
    assert_int_equal(cursor_field(&relayed.path, &cursor, HTTP_LINE_MAX, "path", &fault), OK);
    assert_int_equal(cursor_field(&relayed.query, &cursor, HTTP_LINE_MAX, "query", &fault), OK);
    assert_int_equal(cursor_u64(&length, &cursor, &fault), OK);
    relayed.length = (int64_t)length;
    assert_int_equal(relay_headers_get(relayed.headers, &cursor, RELAY_REQUEST_HEADERS, &fault),
                     OK);
    assert_int_equal(cursor_field(&relayed.token, &cursor, TOKEN_MAX, "token", &fault), OK);
    assert_int_equal(cursor_field(&relayed.fragment, &cursor, RELAY_FRAGMENT_MAX, "body", &fault),
                     OK);
    assert_int_equal(cursor_end(&cursor, &fault), OK);
    return relayed;
}

void cell_say(int cell, uint32_t id, const struct said *said)
{
    struct buffer body = buffer_of(IPC_BODY_MAX);
    uint8_t count = 0;
    while (count < SAID_HEADERS_MAX && said->headers[count].kind)
        count++;
    buffer_put_u8(&body, said->flags);
    buffer_put_u16(&body, (uint16_t)said->http_status);
    buffer_put_u32(&body, 0);
    buffer_put_u64(&body, said->length);
    buffer_put_u8(&body, count);
    for (uint8_t i = 0; i < count; i++) {
        buffer_put_u8(&body, said->headers[i].kind);
        buffer_put_field(&body, said->headers[i].value);
    }
    buffer_put_field(&body, said->fragment);
    assert_false(body.failed);
    cell_send(cell, MESSAGE_RELAY_RESPONSE, id, buffer_span(&body));
    buffer_free(&body);
}

void cell_respond(int cell, uint32_t id, uint8_t flags, int http_status,
                  struct span content_type, struct span allow, uint64_t length,
                  struct span fragment)
{
    struct said said = {.flags = flags, .http_status = http_status, .length = length,
                        .fragment = fragment};
    uint32_t count = 0;
    if (content_type.length)
        said.headers[count++] = (struct header){RELAY_CONTENT_TYPE, content_type};
    if (allow.length)
        said.headers[count] = (struct header){RELAY_ALLOW, allow};
    cell_say(cell, id, &said);
}

void cell_credit(int cell, uint32_t id, uint32_t bytes)
{
    uint8_t storage[4];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u32(&body, bytes);
    cell_send(cell, MESSAGE_RELAY_CREDIT, id, buffer_span(&body));
}

void cell_more(int cell, uint32_t id, uint8_t flags, struct span fragment)
{
    struct buffer body = buffer_of(IPC_BODY_MAX);
    buffer_put_u8(&body, flags);
    buffer_put_field(&body, fragment);
    assert_false(body.failed);
    cell_send(cell, MESSAGE_RELAY_MORE, id, buffer_span(&body));
    buffer_free(&body);
}

void cell_answer(int cell, uint32_t id, int http_status, const char *body)
{
    struct span bytes = span_of_text(body);
    cell_respond(cell, id, FLAG_END, http_status,
                 bytes.length ? SPAN("application/json") : (struct span){0}, (struct span){0},
                 bytes.length, bytes);
}

int house_relayed(struct house *house, int client, struct relayed *ret)
{
    house_get(house, client, "/v1/memories");
    house_find(house, TENANT, 1);
    int cell = house_wake(house, TENANT);
    *ret = house_request(house, cell);
    return cell;
}
