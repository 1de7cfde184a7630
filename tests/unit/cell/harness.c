#define _GNU_SOURCE
#include "harness.h"

#include "authz/token.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "cell/cell.h"
#include "crypt/note.h"
#include "store/store.h"
#include "wire/base64.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { PATIENCE_MS = 10000 };

static void must(status code, const struct fault *fault)
{
    if (code != OK)
        fail_msg("%s: %s", status_code(code), fault->detail);
}

static struct signer *new_signer(uint8_t *ret_public)
{
    uint8_t seed[SIGN_SEED_BYTES];
    struct signer *signer = NULL;
    struct fault fault;
    crypt_random(seed, sizeof seed);
    must(signer_create(&signer, seed, &fault), &fault);
    if (ret_public)
        signer_public(ret_public, signer);
    return signer;
}

/* ---- charters ---- */

void harness_forge(struct harness_charter *ret, struct harness *harness, enum silo_charter scope,
                   uint64_t sequence, struct signer *signer)
{
    struct charter *charter = &harness->charters[scope];
    struct buffer document = buffer_of(CHARTER_MAX), bytes = buffer_of(CHARTER_MAX + 128);
    struct signed_charter made = {.sequence = sequence};
    struct fault fault;
    charter->sequence = sequence;
    must(charter_put(&document, charter, &fault), &fault);
    memcpy(made.id, charter->id, sizeof made.id);
    made.document = buffer_span(&document);
    charter_signed_bytes(&bytes, made.id, sequence, made.document);
    must(signer_sign(made.signature, signer, buffer_span(&bytes), &fault), &fault);
    struct buffer out = buffer_over(ret->bytes, sizeof ret->bytes);
    signed_charter_put(&out, &made);
    must(buffer_check(&out, "charter", &fault), &fault);
    ret->length = out.length;
    ret->head.sequence = sequence;
    charter_hash(ret->head.hash, made.id, sequence, made.document);
    buffer_free(&document);
    buffer_free(&bytes);
}

void harness_sign(struct harness *harness, enum silo_charter scope)
{
    struct harness_charter *made = &harness->in_force[scope];
    harness_forge(made, harness, scope, made->head.sequence + 1, harness->platform);
}

void harness_send_charter(struct harness *harness, const struct harness_charter *charter)
{
    struct fault fault;
    must(ipc_send_wait(harness->kms, MESSAGE_CHARTER, 0,
                       (struct span){charter->bytes, charter->length}, NULL, 0, PATIENCE_MS,
                       &fault), &fault);
}

/* A tenant without quotas, and a platform without a charter. */
static void write_posture(struct harness *harness)
{
    struct charter *charter = &harness->charters[SILO_CHARTER_TENANT];
    memcpy(charter->id, harness->tenant_id, sizeof charter->id);
    charter->issued_at = 1;
    charter->posture = posture_defaults(TIER_STANDARD);
    charter->posture.quotas = (struct quotas){0};
    charter->posture.created_at_us = clock_wall_us() - INT64_C(3600) * 1000000;
    snprintf(charter->posture.name, sizeof charter->posture.name, "acme");
    harness->charters[SILO_CHARTER_PLATFORM].issued_at = 1;
    harness_sign(harness, SILO_CHARTER_TENANT);
}

int harness_setup(void **state)
{
    struct harness *harness = calloc(1, sizeof *harness);
    struct fault fault;
    must(crypt_start(&fault), &fault);
    snprintf(harness->directory, sizeof harness->directory, "/tmp/bulkhead-cell-XXXXXX");
    assert_non_null(mkdtemp(harness->directory));
    crypt_random(harness->tenant_id, sizeof harness->tenant_id);
    hex_encode(harness->tenant_text, SPAN_OF(harness->tenant_id));
    crypt_random(harness->dek, sizeof harness->dek);
    harness->platform = new_signer(harness->platform_key);
    harness->issuer = new_signer(harness->issuer_key);
    harness->stranger = new_signer(NULL);
    const struct merkle_edge nothing = {0};
    struct hash_value root = merkle_root(&nothing);
    memcpy(harness->anchor.log_root, root.bytes, HASH_BYTES);
    harness->idle_seconds = 600;
    write_posture(harness);
    harness->storage = malloc(IPC_PACKET_MAX);
    harness->supervisor = harness->kms = -1;
    for (int i = 0; i < HARNESS_GATEWAYS; i++)
        harness->gateways[i] = -1;
    *state = harness;
    return 0;
}

static int remove_one(const char *path, const struct stat *facts, int type, struct FTW *where)
{
    (void)facts, (void)type, (void)where;
    return remove(path);
}

int harness_teardown(void **state)
{
    struct harness *harness = *state;
    if (harness->pid > 0)
        harness_kill(harness);
    cleanup_close(&harness->supervisor);
    cleanup_close(&harness->kms);
    for (int i = 0; i < HARNESS_GATEWAYS; i++)
        cleanup_close(&harness->gateways[i]);
    signer_free(harness->platform);
    signer_free(harness->issuer);
    signer_free(harness->stranger);
    nftw(harness->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(harness->storage);
    free(harness);
    return 0;
}

/* ---- the kms ---- */

static void reply(struct harness *harness, uint32_t id, status code, struct span result)
{
    uint8_t storage[KIB(4)];
    struct fault fault;
    struct buffer body = buffer_over(storage, sizeof storage);
    reply_put_head(&body, code, code == OK ? "" : "refused by the test");
    buffer_put(&body, result);
    must(buffer_check(&body, "reply", &fault), &fault);
    must(ipc_send_wait(harness->kms, MESSAGE_REPLY, id, buffer_span(&body), NULL, 0, PATIENCE_MS,
                       &fault), &fault);
}

static void on_key_open(struct harness *harness, const struct ipc_message *message)
{
    uint8_t storage[KIB(2)];
    struct buffer result = buffer_over(storage, sizeof storage);
    struct cursor cursor = cursor_over(message->body);
    struct span wrapped;
    struct fault fault;
    must(cursor_field(&wrapped, &cursor, KIB(4), "wrapped", &fault), &fault);
    must(cursor_end(&cursor, &fault), &fault);
    if (harness->made)
        assert_true(span_is(wrapped, "the wrapped key"));
    else
        assert_int_equal(wrapped.length, 0);
    harness->anchor.epoch++;
    harness->opens++;
    buffer_put_u8(&result, 1);
    buffer_put_u32(&result, 1);
    buffer_put(&result, SPAN_OF(harness->dek));
    buffer_put_text_field(&result, harness->made ? "" : "the wrapped key");
    anchor_put(&result, &harness->anchor);
    buffer_put_u32(&result, 0);
    buffer_put(&result, SPAN_OF(harness->platform_key));
    buffer_put(&result, SPAN_OF(harness->issuer_key));
    for (int scope = 0; scope < SILO_CHARTERS; scope++)
        charter_head_put(&result, &harness->in_force[scope].head);
    harness->made = true;
    reply(harness, message->id, OK, buffer_span(&result));
}

/* The rules of docs/protocols.md, ANCHOR_MOVE. */
static bool may_move(const struct anchor *from, const struct anchor *to,
                     const struct hash_value *proof, uint32_t count)
{
    struct hash_value old_root, new_root;
    struct fault fault;
    memcpy(old_root.bytes, from->log_root, HASH_BYTES);
    memcpy(new_root.bytes, to->log_root, HASH_BYTES);
    if (to->epoch != from->epoch || to->commits < from->commits
        || to->map_generation < from->map_generation || to->log_size < from->log_size)
        return false;
    return merkle_check_consistency(from->log_size, to->log_size, proof, count, &old_root,
                                    &new_root, &fault) == OK;
}

static void on_anchor_move(struct harness *harness, const struct ipc_message *message)
{
    struct cursor cursor = cursor_over(message->body);
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    struct anchor anchor;
    struct fault fault;
    uint16_t count;
    must(anchor_get(&anchor, &cursor, &fault), &fault);
    must(cursor_u16(&count, &cursor, &fault), &fault);
    assert_in_range(count, 0, CONSISTENCY_PROOF_MAX);
    for (uint16_t i = 0; i < count; i++)
        must(cursor_copy(proof[i].bytes, &cursor, HASH_BYTES, &fault), &fault);
    must(cursor_end(&cursor, &fault), &fault);
    if (!may_move(&harness->anchor, &anchor, proof, count))
        harness->anchor_broke_rules = true;
    harness->anchor = anchor;
    harness->moves++;
    struct checkpoint checkpoint = {.size = anchor.log_size};
    memcpy(checkpoint.root.bytes, anchor.log_root, HASH_BYTES);
    snprintf(checkpoint.origin, sizeof checkpoint.origin, "bulkhead/silo/%s",
             harness->tenant_text);
    struct buffer note = buffer_of(NOTE_MAX), result = buffer_of(KIB(2));
    must(checkpoint_sign(&note, &checkpoint, PLATFORM_KEY_NAME, harness->platform, &fault),
         &fault);
    buffer_put_field(&result, buffer_span(&note));
    reply(harness, message->id, OK, buffer_span(&result));
    buffer_free(&note);
    buffer_free(&result);
}

static void serve_kms_once(struct harness *harness)
{
    struct ipc_message message;
    struct fault fault;
    uint8_t *storage = malloc(IPC_PACKET_MAX);
    status came = ipc_receive(&message, harness->kms, storage, &fault);
    if (came == CLOSED)
        cleanup_close(&harness->kms);
    else if (came == OK && harness->mood == KMS_REFUSES)
        reply(harness, message.id, ROLLED_BACK, (struct span){0});
    else if (came == OK && message.type == MESSAGE_KEY_OPEN)
        on_key_open(harness, &message);
    else if (came == OK && message.type == MESSAGE_KEY_KEPT)
        reply(harness, message.id, OK, (struct span){0});
    else if (came == OK && message.type == MESSAGE_ANCHOR_MOVE)
        on_anchor_move(harness, &message);
    else if (came != AGAIN)
        fail_msg("the kms was told %#x", came == OK ? message.type : 0);
    free(storage);
}

status harness_receive(struct ipc_message *ret, struct harness *harness, int fd, int timeout_ms)
{
    int64_t until_us = clock_monotonic_us() + (int64_t)timeout_ms * 1000;
    for (;;) {
        struct fault fault;
        status came = fd < 0 ? AGAIN : ipc_receive(ret, fd, harness->storage, &fault);
        if (came != AGAIN)
            return came;
        int64_t left_us = until_us - clock_monotonic_us();
        if (left_us <= 0)
            return AGAIN;
        int kms = harness->mood == KMS_SILENT ? -1 : harness->kms;
        struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = kms, .events = POLLIN}};
        poll(fds, 2, (int)((left_us + 999) / 1000));
        if (fds[1].revents)
            serve_kms_once(harness);
    }
}

void harness_serve_kms(struct harness *harness, int for_ms)
{
    struct ipc_message none;
    assert_int_equal(harness_receive(&none, harness, -1, for_ms), AGAIN);
}

/* ---- the supervisor ---- */

static status no_jail(struct jail_proof *ret, int silo_fd, struct fault *fault)
{
    (void)silo_fd, (void)fault;
    *ret = (struct jail_proof){.landlock_abi = 0};
    return OK;
}

void harness_main(int count, char **arguments, void (*attach)(void))
{
    struct loop *loop = NULL;
    struct fault fault = {0};
    if (count != 2 || !span_is(span_of_text(arguments[1]), "cell"))
        return;
    if (attach)
        attach();
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    log_open("cell", LOG_ERROR + 1);
    status ran = crypt_start(&fault);
    if (ran == OK)
        ran = store_start(&fault);
    if (ran == OK)
        ran = loop_create(&loop, &fault);
    if (ran == OK)
        ran = cell_run(JAIL_FD_SUPERVISOR, loop, no_jail, &fault);
    if (ran != OK)
        fprintf(stderr, "  (the cell ended: %s)\n", fault.detail);
    if (loop)
        loop_free(loop);
    exit(ran == OK ? 0 : 1);
}

static void close_all(struct harness *harness)
{
    cleanup_close(&harness->supervisor);
    cleanup_close(&harness->kms);
    for (int i = 0; i < HARNESS_GATEWAYS; i++)
        cleanup_close(&harness->gateways[i]);
}

void harness_expect(struct ipc_message *ret, struct harness *harness, uint32_t type)
{
    for (;;) { /* reports of usage come whenever there is one */
        assert_int_equal(harness_receive(ret, harness, harness->supervisor, PATIENCE_MS), OK);
        if (ret->type != MESSAGE_CELL_USAGE || type == MESSAGE_CELL_USAGE)
            break;
        ipc_message_close(ret);
    }
    assert_int_equal(ret->type, type);
}

void harness_tell(struct harness *harness, uint32_t type, struct span body, const int *fds,
                  uint32_t fd_count)
{
    struct fault fault;
    must(ipc_send_wait(harness->supervisor, type, 0, body, fds, fd_count, PATIENCE_MS, &fault),
         &fault);
}

static void tell_assume(struct harness *harness, int silo, int kms)
{
    struct buffer posture = buffer_of(IPC_BODY_MAX), body = buffer_of(IPC_BODY_MAX);
    buffer_put_u32(&posture, harness->idle_seconds);
    buffer_put_text_field(&posture, harness->region);
    for (int scope = 0; scope < SILO_CHARTERS; scope++) {
        const struct harness_charter *handed = harness->handed[scope];
        if (!handed)
            handed = &harness->in_force[scope];
        buffer_put_field(&posture, (struct span){handed->bytes, handed->length});
    }
    prices_put(&posture, &(struct prices){0});
    buffer_put(&body, SPAN_OF(harness->tenant_id));
    buffer_put_u32(&body, 100000);
    buffer_put_field(&body, buffer_span(&posture));
    harness_tell(harness, MESSAGE_CELL_ASSUME, buffer_span(&body), (int[]){silo, kms}, 2);
    buffer_free(&posture);
    buffer_free(&body);
}

void harness_begin(struct harness *harness)
{
    int ends[2];
    struct fault fault;
    struct ipc_message message;
    close_all(harness);
    must(ipc_pair(ends, &fault), &fault);
    harness->pid = fork();
    assert_true(harness->pid >= 0);
    if (harness->pid == 0) {
        char name[] = "cell";
        char *arguments[] = {name, name, NULL};
        if (dup2(ends[1], JAIL_FD_SUPERVISOR) == JAIL_FD_SUPERVISOR)
            execv("/proc/self/exe", arguments);
        _exit(127);
    }
    close(ends[1]);
    harness->supervisor = ends[0];
    harness_expect(&message, harness, MESSAGE_CELL_BLANK);
    must(ipc_pair(ends, &fault), &fault);
    harness->kms = ends[0];
    _cleanup_close_ int silo = open(harness->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    tell_assume(harness, silo, ends[1]);
    close(ends[1]);
    harness_expect(&message, harness, MESSAGE_JAILED);
    assert_int_equal(message.body.length, 5);
}

void harness_start(struct harness *harness)
{
    struct ipc_message message;
    harness_begin(harness);
    harness_expect(&message, harness, MESSAGE_CELL_READY);
    assert_int_equal(message.body.length, 8);
    harness_attach(harness, 0);
}

static void tell_channel(struct harness *harness, uint8_t kind, uint32_t index, int *ret_end)
{
    int ends[2];
    uint8_t storage[5];
    struct fault fault;
    struct buffer body = buffer_over(storage, sizeof storage);
    must(ipc_pair(ends, &fault), &fault);
    buffer_put_u8(&body, kind);
    buffer_put_u32(&body, index);
    harness_tell(harness, MESSAGE_CHANNEL, buffer_span(&body), &ends[1], 1);
    close(ends[1]);
    cleanup_close(ret_end);
    *ret_end = ends[0];
}

void harness_attach(struct harness *harness, uint32_t index)
{
    tell_channel(harness, CHANNEL_GATEWAY, index, &harness->gateways[index]);
}

void harness_new_kms(struct harness *harness)
{
    tell_channel(harness, CHANNEL_KMS, 0, &harness->kms);
}

int harness_end(struct harness *harness)
{
    int64_t until_us = clock_monotonic_us() + (int64_t)PATIENCE_MS * 1000;
    int result;
    pid_t ended;
    while ((ended = waitpid(harness->pid, &result, WNOHANG)) == 0
           && clock_monotonic_us() < until_us)
        harness_serve_kms(harness, 2);
    if (ended == 0)
        fail_msg("the cell does not end");
    harness->pid = 0;
    return WIFEXITED(result) ? WEXITSTATUS(result) : 128 + WTERMSIG(result);
}

void harness_kill(struct harness *harness)
{
    kill(harness->pid, SIGKILL);
    waitpid(harness->pid, NULL, 0);
    harness->pid = 0;
}

void harness_pause(struct harness *harness)
{
    int result;
    kill(harness->pid, SIGSTOP);
    assert_int_equal(waitpid(harness->pid, &result, WUNTRACED), harness->pid);
    assert_true(WIFSTOPPED(result));
}

void harness_resume(struct harness *harness)
{
    kill(harness->pid, SIGCONT);
}

void harness_park(struct harness *harness)
{
    struct ipc_message message;
    harness_tell(harness, MESSAGE_CELL_PARK, (struct span){0}, NULL, 0);
    for (uint32_t i = 0; i < HARNESS_GATEWAYS; i++) {
        if (harness->gateways[i] < 0)
            continue;
        assert_int_equal(harness_receive(&message, harness, harness->gateways[i], PATIENCE_MS),
                         OK);
        assert_int_equal(message.type, MESSAGE_RELAY_DRAIN);
        harness_send_raw(harness, i, MESSAGE_RELAY_DRAINED, 0, (struct span){0});
        cleanup_close(&harness->gateways[i]);
    }
    harness_expect(&message, harness, MESSAGE_CELL_PARKED);
    assert_int_equal(harness_end(harness), 0);
    assert_false(harness->anchor_broke_rules);
}

void harness_expect_closed(struct harness *harness, int fd)
{
    struct ipc_message message;
    assert_int_equal(harness_receive(&message, harness, fd, PATIENCE_MS), CLOSED);
}

void harness_expect_failed(struct harness *harness, status why)
{
    struct ipc_message message;
    struct fault fault;
    uint16_t code;
    harness_expect(&message, harness, MESSAGE_CELL_FAILED);
    struct cursor cursor = cursor_over(message.body);
    must(cursor_u16(&code, &cursor, &fault), &fault);
    assert_int_equal(code, why);
    assert_int_equal(harness_end(harness), 1);
}

/* ---- the gateways ---- */

void harness_token(char text[2048], struct harness *harness, struct harness_token wanted)
{
    char id[TOKEN_KEY_ID_TEXT];
    uint8_t signature[SIGNATURE_BYTES];
    struct fault fault;
    struct token_request request = {
        .tenant = span_of_text(wanted.tenant ? wanted.tenant : harness->tenant_text),
        .user = span_of_text(wanted.user ? wanted.user : "alice"),
        .scope = span_of_text(wanted.scope ? wanted.scope : "memory:read memory:write tenant:read"),
        .clearance = span_of_text(wanted.clearance),
        .ttl_seconds = wanted.ttl_seconds ? wanted.ttl_seconds : 600,
        .ttl_max_seconds = TOKEN_LIFETIME_MAX_SECONDS,
    };
    struct buffer out = buffer_over((uint8_t *)text, 2047);
    token_key_id(id, harness->issuer_key);
    must(token_body_put(&out, &request, id, clock_wall_us() / 1000000 - wanted.age_seconds,
                        &fault), &fault);
    must(signer_sign(signature, wanted.forged ? harness->stranger : harness->issuer,
                     buffer_span(&out), &fault), &fault);
    token_signature_put(&out, signature);
    must(buffer_check(&out, "token", &fault), &fault);
    text[out.length] = '\0';
}

void harness_raw_token(char text[2048], struct harness *harness, bool by_stranger,
                       const char *payload)
{
    char id[TOKEN_KEY_ID_TEXT];
    uint8_t storage[128], signature[SIGNATURE_BYTES];
    struct fault fault;
    struct buffer header = buffer_over(storage, sizeof storage);
    struct buffer out = buffer_over((uint8_t *)text, 2047);
    token_key_id(id, harness->issuer_key);
    buffer_printf(&header, "{\"alg\":\"EdDSA\",\"typ\":\"JWT\",\"kid\":\"%s\"}",
                  by_stranger ? "k1" : id);
    base64url_put(&out, buffer_span(&header));
    buffer_put_text(&out, ".");
    base64url_put(&out, span_of_text(payload));
    must(signer_sign(signature, by_stranger ? harness->stranger : harness->issuer,
                     buffer_span(&out), &fault), &fault);
    token_signature_put(&out, signature);
    must(buffer_check(&out, "token", &fault), &fault);
    text[out.length] = '\0';
}

struct token_issuer harness_issuer(struct harness *harness)
{
    struct token_issuer issuer = {
        .iss = "https://idp.example", .aud = "bulkhead", .tenant_claim = "tenant_id",
        .user_claim = "sub", .scope_claim = "scope", .clearance_claim = "clearance",
        .lifetime_max_seconds = 3600, .early_seconds = 60, .late_seconds = 60,
        .keys = {{.id = "k1", .alg = TOKEN_EDDSA, .length = SIGN_PUBLIC_BYTES}}, .key_count = 1,
    };
    signer_public(issuer.keys[0].public_key, harness->stranger);
    return issuer;
}

void harness_send_raw(struct harness *harness, uint32_t gateway, uint32_t type, uint32_t id,
                      struct span body)
{
    struct fault fault;
    must(ipc_send_wait(harness->gateways[gateway], type, id, body, NULL, 0, PATIENCE_MS, &fault),
         &fault);
}

void harness_send_body(struct harness *harness, uint32_t gateway, uint32_t id, uint8_t flags,
                       struct span fragment)
{
    struct buffer frame = buffer_of(IPC_BODY_MAX);
    buffer_put_u8(&frame, flags);
    buffer_put_field(&frame, fragment);
    harness_send_raw(harness, gateway, MESSAGE_RELAY_BODY, id, buffer_span(&frame));
    buffer_free(&frame);
}

void harness_send_credit(struct harness *harness, uint32_t gateway, uint32_t id, uint32_t bytes)
{
    uint8_t storage[4];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u32(&body, bytes);
    harness_send_raw(harness, gateway, MESSAGE_RELAY_CREDIT, id, buffer_span(&body));
}

static void put_headers(struct buffer *frame, const struct harness_request *request)
{
    struct span headers[RELAY_HEADERS];
    for (int kind = 0; kind < RELAY_HEADERS; kind++)
        headers[kind] = span_of_text(request->headers[kind]);
    if (request->content_type)
        headers[RELAY_CONTENT_TYPE] = span_of_text(request->content_type);
    else if (request->body.length)
        headers[RELAY_CONTENT_TYPE] = SPAN("application/json");
    uint64_t length = request->length ? (uint64_t)request->length : request->body.length;
    buffer_put_u64(frame, request->chunked || (request->open && !request->length) ? UINT64_MAX
                                                                                 : length);
    relay_headers_put(frame, headers);
}

void harness_send(struct harness *harness, uint32_t gateway, uint32_t id,
                  struct harness_request request)
{
    struct buffer frame = buffer_of(IPC_BODY_MAX);
    size_t step = request.first ? request.first : RELAY_FRAGMENT_MAX;
    struct span left = request.body;
    for (bool head = true; head || left.length; head = false) {
        struct span piece = {left.data, left.length < step ? left.length : step};
        left.data = left.data ? left.data + piece.length : NULL;
        left.length -= piece.length;
        buffer_clear(&frame);
        buffer_put_u8(&frame, left.length || request.open ? 0 : FLAG_END);
        if (head) {
            uint8_t trace_id[TRACE_ID_BYTES] = {0xAB, 0xCD, [15] = (uint8_t)id};
            buffer_put(&frame, SPAN_OF(trace_id));
            buffer_put_text_field(&frame, request.method);
            buffer_put_text_field(&frame, request.path);
            buffer_put_text_field(&frame, request.query);
            put_headers(&frame, &request);
            buffer_put_text_field(&frame, request.token);
        }
        buffer_put_field(&frame, piece);
        harness_send_raw(harness, gateway, head ? MESSAGE_RELAY_REQUEST : MESSAGE_RELAY_BODY, id,
                         buffer_span(&frame));
    }
    buffer_free(&frame);
}

static void read_head(struct harness_answer *answer, struct cursor *cursor)
{
    struct span headers[RELAY_HEADERS];
    struct fault fault;
    uint16_t http_status;
    must(cursor_u16(&http_status, cursor, &fault), &fault);
    must(cursor_u32(&answer->retry_after, cursor, &fault), &fault);
    must(cursor_u64(&answer->length, cursor, &fault), &fault);
    must(relay_headers_get(headers, cursor, RELAY_ANSWER_HEADERS, &fault), &fault);
    for (int kind = 0; kind < RELAY_HEADERS; kind++)
        assert_true(span_to_text(answer->headers[kind], sizeof answer->headers[kind],
                                 headers[kind]));
    answer->http_status = http_status;
}

static void read_fragment(struct harness_answer *answer, struct cursor *cursor, uint8_t flags)
{
    struct span piece;
    struct fault fault;
    must(cursor_field(&piece, cursor, RELAY_FRAGMENT_MAX, "fragment", &fault), &fault);
    must(cursor_end(cursor, &fault), &fault);
    if (answer->fragments > 1 && !(flags & FLAG_END))
        assert_true(piece.length > 0);
    buffer_put(&answer->body, piece);
    buffer_put_u8(&answer->body, 0);
    assert_false(answer->body.failed);
    answer->body.length--;
    answer->over = flags & FLAG_END;
}

bool harness_part(struct harness_answer *answer, struct harness *harness, uint32_t gateway,
                  int timeout_ms)
{
    struct ipc_message message;
    struct fault fault;
    uint32_t credit;
    uint8_t flags;
    status came = harness_receive(&message, harness, harness->gateways[gateway], timeout_ms);
    if (came == AGAIN)
        return false;
    if (came != OK)
        fail_msg("gateway %u: no answer: %s", gateway, status_code(came));
    struct cursor cursor = cursor_over(message.body);
    if (message.type == MESSAGE_RELAY_CREDIT) {
        must(cursor_u32(&credit, &cursor, &fault), &fault);
        assert_true(credit > 0);
        answer->credit += credit;
        return true;
    }
    if (!answer->body.max)
        answer->body = buffer_of(MIB(64));
    answer->id = answer->fragments ? answer->id : message.id;
    assert_int_equal(message.id, answer->id);
    if (message.type == MESSAGE_RELAY_BREAK) {
        assert_true(answer->fragments > 0 && message.body.length == 0);
        answer->over = answer->broken = true;
        return true;
    }
    must(cursor_u8(&flags, &cursor, &fault), &fault);
    if (answer->fragments++ == 0) {
        assert_int_equal(message.type, MESSAGE_RELAY_RESPONSE);
        read_head(answer, &cursor);
    } else {
        assert_int_equal(message.type, MESSAGE_RELAY_MORE);
    }
    read_fragment(answer, &cursor, flags);
    return true;
}

void harness_answer(struct harness_answer *ret, struct harness *harness, uint32_t gateway)
{
    *ret = (struct harness_answer){0};
    while (!ret->over)
        if (!harness_part(ret, harness, gateway, PATIENCE_MS))
            fail_msg("gateway %u: no answer", gateway);
    if (ret->length != RELAY_LENGTH_UNKNOWN && ret->body.length > 0)
        assert_int_equal(ret->body.length, ret->length);
}

void harness_stream(struct harness_answer *answer, struct harness *harness, uint32_t gateway)
{
    while (!answer->over) {
        size_t before = answer->body.length;
        if (!harness_part(answer, harness, gateway, PATIENCE_MS))
            fail_msg("gateway %u: the answer does not go on", gateway);
        if (answer->body.length > before && !answer->over)
            harness_send_credit(harness, gateway, answer->id,
                                (uint32_t)(answer->body.length - before));
    }
}

void harness_answer_free(struct harness_answer *answer)
{
    buffer_free(&answer->body);
}

void harness_ask(struct harness *harness, struct harness_request request, int http_status,
                 const char *text)
{
    struct harness_answer answer;
    harness_send(harness, 0, 1, request);
    harness_answer(&answer, harness, 0);
    const char *body = (const char *)answer.body.data;
    if (answer.http_status != http_status || (text && !strstr(body, text)))
        fail_msg("%s %s: %d %s", request.method, request.path, answer.http_status, body);
    harness_answer_free(&answer);
}
