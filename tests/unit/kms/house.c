#include "house.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "disk_faults.h"

#include <string.h>
#include <unistd.h>

int directory, supervisor, standing, admin;
struct loop *loop;
struct keystore *store;
struct kms *kms;
struct fault fault;
uint8_t platform_key[SIGN_PUBLIC_BYTES], issuer_key[SIGN_PUBLIC_BYTES];

uint8_t packet[IPC_PACKET_MAX];
static uint8_t body_storage[BODY_BYTES];
struct buffer body;
struct ipc_message answer;

/* ---- speaking ---- */

struct buffer *new_body(void)
{
    body = buffer_over(body_storage, sizeof body_storage);
    return &body;
}

struct span bare_id(uint8_t n)
{
    return (struct span){id_of(n), TENANT_ID_BYTES};
}

void turns(int count)
{
    for (int i = 0; i < count; i++)
        assert_ok(loop_turn(loop, 0, &fault));
}

void send_message(int fd, uint32_t type, struct span bytes, const int *fds, uint32_t count)
{
    assert_ok(ipc_send(fd, type, type + 7, bytes, fds, count, &fault));
}

bool is_closed(int fd)
{
    turns(2);
    status received = ipc_receive(&answer, fd, packet, &fault);
    if (received == OK)
        fail_msg("message %#x where the end was due", answer.type);
    return received == CLOSED;
}

status answered(struct cursor *result, int fd, uint32_t type)
{
    turns(2);
    assert_ok(ipc_receive(&answer, fd, packet, &fault));
    assert_int_equal(answer.type, MESSAGE_REPLY);
    assert_int_equal(answer.id, type + 7);
    assert_int_equal(answer.fd_count, 0);
    return reply_get_head(result, &answer, &fault);
}

status ask(struct cursor *result, int fd, uint32_t type, struct span bytes)
{
    send_message(fd, type, bytes, NULL, 0);
    return answered(result, fd, type);
}

status ask_id(struct cursor *result, int fd, uint32_t type, uint8_t n)
{
    return ask(result, fd, type, bare_id(n));
}

int hand_over(uint32_t type, struct span bytes, status due)
{
    int ends[2];
    struct cursor result;
    assert_ok(ipc_pair(ends, &fault));
    send_message(supervisor, type, bytes, &ends[1], 1);
    close(ends[1]);
    if (type != MESSAGE_CHANNEL)
        assert_int_equal(answered(&result, supervisor, type), due);
    else
        turns(1);
    return ends[0];
}

int new_cell(uint8_t n)
{
    return hand_over(MESSAGE_KMS_SERVE_CELL, bare_id(n), OK);
}

int new_admin(void)
{
    buffer_put_u32(new_body(), 1000);
    return hand_over(MESSAGE_KMS_SERVE_ADMIN, buffer_span(&body), OK);
}

/* The operators of the control before this one are gone with it; one is there again. */
int new_standing(void)
{
    buffer_put_u8(new_body(), CHANNEL_CONTROL);
    buffer_put_u32(&body, 0);
    int fd = hand_over(MESSAGE_CHANNEL, buffer_span(&body), OK);
    if (admin > 0) {
        cleanup_close(&admin);
        admin = new_admin();
    }
    return fd;
}

static void read_opened(struct opened *ret, struct cursor result)
{
    uint8_t keys[2][SIGN_PUBLIC_BYTES];
    struct span wrapped;
    uint8_t count;
    uint32_t version;
    assert_ok(cursor_u8(&count, &result, &fault));
    assert_in_range(count, 1, DEK_VERSIONS_MAX);
    ret->count = count;
    for (uint32_t i = 0; i < count; i++) {
        assert_ok(cursor_u32(&version, &result, &fault));
        assert_ok(cursor_copy(i ? ret->older[i - 1] : ret->dek, &result, KEY_BYTES, &fault));
        ret->version = i ? ret->version : version;
    }
    assert_ok(cursor_field(&wrapped, &result, sizeof ret->wrapped, "wrapped", &fault));
    memcpy(ret->wrapped, wrapped.data, wrapped.length);
    ret->wrapped_length = wrapped.length;
    assert_ok(anchor_get(&ret->anchor, &result, &fault));
    assert_ok(cursor_u32(&ret->restores, &result, &fault));
    assert_ok(cursor_copy(keys[0], &result, SIGN_PUBLIC_BYTES, &fault));
    assert_ok(cursor_copy(keys[1], &result, SIGN_PUBLIC_BYTES, &fault));
    assert_ok(charter_head_get(&ret->own, &result, &fault));
    assert_ok(charter_head_get(&ret->platform, &result, &fault));
    assert_ok(cursor_end(&result, &fault));
    assert_memory_equal(keys[0], platform_key, SIGN_PUBLIC_BYTES);
    assert_memory_equal(keys[1], issuer_key, SIGN_PUBLIC_BYTES);
}

status open_key(struct opened *ret, int fd, struct span wrapped)
{
    struct cursor result;
    buffer_put_field(new_body(), wrapped);
    TRY(ask(&result, fd, MESSAGE_KEY_OPEN, buffer_span(&body)));
    read_opened(ret, result);
    return OK;
}

void create_key(uint8_t n)
{
    struct cursor result;
    assert_ok(ask_id(&result, admin, MESSAGE_KEY_CREATE, n));
    assert_int_equal(cursor_left(&result), HASH_BYTES);
}

struct anchor anchor_of(const struct opened *opened, uint64_t commits, uint64_t log_size)
{
    struct anchor anchor = {.epoch = opened->anchor.epoch, .commits = commits,
                            .map_generation = commits, .log_size = log_size};
    memset(anchor.map_hash, (int)commits, sizeof anchor.map_hash);
    log_root(anchor.log_root, log_size);
    return anchor;
}

void put_move(const struct anchor *anchor, uint64_t from)
{
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    uint32_t count = log_proof(proof, from, anchor->log_size);
    anchor_put(new_body(), anchor);
    buffer_put_u16(&body, (uint16_t)count);
    for (uint32_t i = 0; i < count; i++)
        buffer_put(&body, SPAN_OF(proof[i].bytes));
}

struct signed_charter charter_of(uint8_t n, uint64_t sequence, const char *document)
{
    struct signed_charter charter = {.sequence = sequence, .document = span_of_text(document)};
    memcpy(charter.id, id_of(n), TENANT_ID_BYTES);
    return charter;
}

static void verify(const struct signed_charter *charter)
{
    static uint8_t storage[CHARTER_SIGNED_MAX];
    struct buffer message = buffer_over(storage, sizeof storage);
    struct verifier *verifier;
    charter_signed_bytes(&message, charter->id, charter->sequence, charter->document);
    assert_ok(verifier_create(&verifier, platform_key, &fault));
    assert_ok(verifier_check(verifier, buffer_span(&message), charter->signature, &fault));
    verifier_free(verifier);
}

status sign(int fd, const struct signed_charter *charter)
{
    struct signed_charter made = *charter;
    struct cursor result;
    buffer_put(new_body(), SPAN_OF(charter->id));
    buffer_put_u64(&body, charter->sequence);
    buffer_put_field(&body, charter->document);
    TRY(ask(&result, fd, MESSAGE_CHARTER_SIGN, buffer_span(&body)));
    assert_ok(cursor_copy(made.signature, &result, SIGNATURE_BYTES, &fault));
    assert_ok(cursor_end(&result, &fault));
    verify(&made);
    return OK;
}

/* ---- the house ---- */

int set_up(void **state)
{
    int ends[2];
    (void)state;
    directory = directory_make();
    store = store_open_in(directory);
    keystore_public_keys(platform_key, issuer_key, store);
    assert_ok(loop_create(&loop, &fault));
    assert_ok(ipc_pair(ends, &fault));
    supervisor = ends[0];
    assert_ok(kms_serve(&kms, loop, store, ends[1], &fault));
    assert_ok(ipc_receive(&answer, supervisor, packet, &fault));
    assert_int_equal(answer.type, MESSAGE_READY);
    assert_int_equal(answer.body.length, 64);
    assert_memory_equal(answer.body.data, platform_key, 32);
    assert_memory_equal(answer.body.data + 32, issuer_key, 32);
    standing = new_standing();
    admin = new_admin();
    return 0;
}

int tear_down(void **state)
{
    (void)state;
    disk_faults_on_fdatasync = NULL;
    kms = kms_free(kms);
    loop = loop_free(loop);
    store = keystore_close(store);
    directory_remove(directory);
    cleanup_close(&supervisor);
    cleanup_close(&standing);
    cleanup_close(&admin);
    return 0;
}

void everybody_else_is_served(void)
{
    struct cursor result;
    assert_ok(ask_id(&result, standing, MESSAGE_KEY_STATE, 0x77));
    assert_ok(ask_id(&result, admin, MESSAGE_KEY_STATE, 0x77));
    assert_ok(kms_outcome(kms, &fault));
}

void put_mint(uint8_t n, const char *user, const char *scope, uint32_t ttl_seconds)
{
    buffer_put(new_body(), bare_id(n));
    buffer_put_text_field(&body, user);
    buffer_put_text_field(&body, "agent-7");
    buffer_put_text_field(&body, scope);
    buffer_put_text_field(&body, "confidential");
    buffer_put_u32(&body, ttl_seconds);
}

int house_run(const struct CMUnitTest *tests, size_t count)
{
    struct fault why;
    log_open("kms", LOG_ERROR + 1); /* what is refused here is refused on purpose */
    if (crypt_start(&why) != OK)
        return 1;
    return _cmocka_run_group_tests("kms channels", tests, count, NULL, NULL);
}
