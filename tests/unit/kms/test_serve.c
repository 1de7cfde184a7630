#include "disk_faults.h"
#include "support.h"

#include "authz/token.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "crypt/note.h"
#include "kms/serve.h"
#include "wire/ipc.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BODY_BYTES = 8192 };

static int directory, supervisor, standing, admin;
static struct loop *loop;
static struct keystore *store;
static struct kms *kms;
static struct fault fault;
static uint8_t platform_key[SIGN_PUBLIC_BYTES], issuer_key[SIGN_PUBLIC_BYTES];

static uint8_t packet[IPC_PACKET_MAX];
static uint8_t body_storage[BODY_BYTES];
static struct buffer body;
static struct ipc_message answer; /* the last one received */

/* ---- speaking ---- */

static struct buffer *new_body(void)
{
    body = buffer_over(body_storage, sizeof body_storage);
    return &body;
}

static struct span bare_id(uint8_t n)
{
    return (struct span){id_of(n), TENANT_ID_BYTES};
}

static void turns(int count)
{
    for (int i = 0; i < count; i++)
        assert_ok(loop_turn(loop, 0, &fault));
}

static void send_message(int fd, uint32_t type, struct span bytes, const int *fds, uint32_t count)
{
    assert_ok(ipc_send(fd, type, type + 7, bytes, fds, count, &fault));
}

static bool is_closed(int fd)
{
    turns(2);
    status received = ipc_receive(&answer, fd, packet, &fault);
    if (received == OK)
        fail_msg("message %#x where the end was due", answer.type);
    return received == CLOSED;
}

/* The status of the answer; result: what is behind its head. */
static status answered(struct cursor *result, int fd, uint32_t type)
{
    turns(2);
    assert_ok(ipc_receive(&answer, fd, packet, &fault));
    assert_int_equal(answer.type, MESSAGE_REPLY);
    assert_int_equal(answer.id, type + 7);
    assert_int_equal(answer.fd_count, 0);
    return reply_get_head(result, &answer, &fault);
}

static status ask(struct cursor *result, int fd, uint32_t type, struct span bytes)
{
    send_message(fd, type, bytes, NULL, 0);
    return answered(result, fd, type);
}

static status ask_id(struct cursor *result, int fd, uint32_t type, uint8_t n)
{
    return ask(result, fd, type, bare_id(n));
}

/* Hands one end of a new channel to the kms; ours comes back. */
static int hand_over(uint32_t type, struct span bytes, status due)
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

static int new_cell(uint8_t n)
{
    return hand_over(MESSAGE_KMS_SERVE_CELL, bare_id(n), OK);
}

static int new_standing(void)
{
    buffer_put_u8(new_body(), CHANNEL_CONTROL);
    buffer_put_u32(&body, 0);
    return hand_over(MESSAGE_CHANNEL, buffer_span(&body), OK);
}

static int new_admin(void)
{
    buffer_put_u32(new_body(), 1000);
    return hand_over(MESSAGE_KMS_SERVE_ADMIN, buffer_span(&body), OK);
}

struct opened {
    uint32_t version;
    uint8_t dek[KEY_BYTES], wrapped[128];
    size_t wrapped_length;
    struct anchor anchor;
};

static void read_opened(struct opened *ret, struct cursor result)
{
    uint8_t keys[2][SIGN_PUBLIC_BYTES];
    struct span wrapped;
    assert_ok(cursor_u32(&ret->version, &result, &fault));
    assert_ok(cursor_copy(ret->dek, &result, KEY_BYTES, &fault));
    assert_ok(cursor_field(&wrapped, &result, sizeof ret->wrapped, "wrapped", &fault));
    memcpy(ret->wrapped, wrapped.data, wrapped.length);
    ret->wrapped_length = wrapped.length;
    assert_ok(anchor_get(&ret->anchor, &result, &fault));
    assert_ok(cursor_copy(keys[0], &result, SIGN_PUBLIC_BYTES, &fault));
    assert_ok(cursor_copy(keys[1], &result, SIGN_PUBLIC_BYTES, &fault));
    assert_ok(cursor_end(&result, &fault));
    assert_memory_equal(keys[0], platform_key, SIGN_PUBLIC_BYTES);
    assert_memory_equal(keys[1], issuer_key, SIGN_PUBLIC_BYTES);
}

static status open_key(struct opened *ret, int fd, struct span wrapped)
{
    struct cursor result;
    buffer_put_field(new_body(), wrapped);
    TRY(ask(&result, fd, MESSAGE_KEY_OPEN, buffer_span(&body)));
    read_opened(ret, result);
    return OK;
}

static void create_key(uint8_t n)
{
    struct cursor result;
    assert_ok(ask_id(&result, admin, MESSAGE_KEY_CREATE, n));
    assert_int_equal(cursor_left(&result), HASH_BYTES);
}

static struct anchor anchor_of(const struct opened *opened, uint64_t commits, uint64_t log_size)
{
    struct anchor anchor = {.epoch = opened->anchor.epoch, .commits = commits,
                            .map_generation = commits, .log_size = log_size};
    memset(anchor.map_hash, (int)commits, sizeof anchor.map_hash);
    log_root(anchor.log_root, log_size);
    return anchor;
}

static void put_move(const struct anchor *anchor, uint64_t from)
{
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    uint32_t count = log_proof(proof, from, anchor->log_size);
    anchor_put(new_body(), anchor);
    buffer_put_u16(&body, (uint16_t)count);
    for (uint32_t i = 0; i < count; i++)
        buffer_put(&body, SPAN_OF(proof[i].bytes));
}

/* ---- the house ---- */

static int set_up(void **state)
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

static int tear_down(void **state)
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

static void everybody_else_is_served(void)
{
    struct cursor result;
    assert_ok(ask_id(&result, standing, MESSAGE_KEY_STATE, 0x77));
    assert_ok(ask_id(&result, admin, MESSAGE_KEY_STATE, 0x77));
    assert_ok(kms_outcome(kms, &fault));
}

/* ---- keys and anchors ---- */

static void a_cell_gets_the_key_of_its_tenant_and_moves_its_anchor(void **state)
{
    (void)state;
    struct opened opened, again;
    struct cursor result;
    struct span note;
    struct checkpoint checkpoint;
    create_key(1);
    _cleanup_close_ int cell = new_cell(1);
    assert_ok(open_key(&opened, cell, SPAN("")));
    assert_int_equal(opened.anchor.epoch, 1);
    assert_true(opened.wrapped_length > KEY_BYTES);
    struct anchor anchor = anchor_of(&opened, 3, 9);
    put_move(&anchor, 0);
    assert_ok(ask(&result, cell, MESSAGE_ANCHOR_MOVE, buffer_span(&body)));
    assert_ok(cursor_field(&note, &result, NOTE_MAX, "note", &fault));
    assert_ok(cursor_end(&result, &fault));
    assert_ok(checkpoint_open(&checkpoint, note, PLATFORM_KEY_NAME, platform_key, &fault));
    assert_string_equal(checkpoint.origin, "bulkhead/silo/01010101010101010101010101010101");
    assert_int_equal(checkpoint.size, 9);
    _cleanup_close_ int later = new_cell(1);
    assert_true(is_closed(cell));
    assert_ok(open_key(&again, later, (struct span){opened.wrapped, opened.wrapped_length}));
    assert_memory_equal(again.dek, opened.dek, KEY_BYTES);
    assert_int_equal(again.wrapped_length, 0);
    assert_int_equal(again.anchor.epoch, 2);
    assert_int_equal(again.anchor.log_size, 9);
}

static void two_tenants_get_two_keys(void **state)
{
    (void)state;
    struct opened first, second;
    create_key(1);
    create_key(2);
    _cleanup_close_ int one = new_cell(1), two = new_cell(2);
    assert_ok(open_key(&first, one, SPAN("")));
    assert_int_equal(open_key(&second, two,
                              (struct span){first.wrapped, first.wrapped_length}), CORRUPT);
    assert_ok(open_key(&second, two, SPAN("")));
    assert_memory_not_equal(first.dek, second.dek, KEY_BYTES);
}

static void control_opens_the_platforms_own_silo(void **state)
{
    (void)state;
    struct opened opened;
    struct cursor result;
    struct span note;
    struct checkpoint checkpoint;
    assert_ok(open_key(&opened, standing, SPAN("")));
    struct anchor anchor = anchor_of(&opened, 1, 2);
    put_move(&anchor, 0);
    assert_ok(ask(&result, standing, MESSAGE_ANCHOR_MOVE, buffer_span(&body)));
    assert_ok(cursor_field(&note, &result, NOTE_MAX, "note", &fault));
    assert_ok(checkpoint_open(&checkpoint, note, PLATFORM_KEY_NAME, platform_key, &fault));
    assert_string_equal(checkpoint.origin, "bulkhead/ledger");
    int older = standing;
    standing = new_standing();
    assert_true(is_closed(older));
    close(older);
    assert_ok(open_key(&opened, standing, (struct span){opened.wrapped, opened.wrapped_length}));
    assert_int_equal(opened.anchor.epoch, 2);
}

static void the_key_is_given_once_a_channel(void **state)
{
    (void)state;
    struct opened opened;
    create_key(1);
    _cleanup_close_ int cell = new_cell(1);
    assert_ok(open_key(&opened, cell, SPAN("")));
    buffer_put_field(new_body(), (struct span){opened.wrapped, opened.wrapped_length});
    send_message(cell, MESSAGE_KEY_OPEN, buffer_span(&body), NULL, 0);
    assert_true(is_closed(cell));
    everybody_else_is_served();
}

static void an_anchor_before_the_key_ends_the_channel(void **state)
{
    (void)state;
    struct anchor anchor = {.epoch = 1};
    create_key(1);
    _cleanup_close_ int cell = new_cell(1);
    put_move(&anchor, 0);
    send_message(cell, MESSAGE_ANCHOR_MOVE, buffer_span(&body), NULL, 0);
    assert_true(is_closed(cell));
    everybody_else_is_served();
}

static void a_refused_anchor_is_answered_and_ends_the_channel(void **state)
{
    (void)state;
    create_key(1);
    for (int kind = 0; kind < 4; kind++) {
        struct opened opened;
        struct cursor result;
        _cleanup_close_ int cell = new_cell(1);
        assert_ok(open_key(&opened, cell, SPAN("")));
        struct anchor anchor = anchor_of(&opened, 0, 0);
        anchor.epoch += kind == 0;
        anchor.epoch -= kind == 1;
        anchor.log_root[0] ^= kind == 2;
        put_move(&anchor, 0);
        if (kind == 3) { /* a proof from nowhere */
            body.length -= 2;
            buffer_put_u16(&body, 1);
            buffer_put(&body, SPAN_OF(anchor.log_root));
        }
        assert_int_equal(ask(&result, cell, MESSAGE_ANCHOR_MOVE, buffer_span(&body)), CORRUPT);
        assert_true(is_closed(cell));
    }
    everybody_else_is_served();
}

static void an_unknown_or_shredded_tenant_has_no_cell(void **state)
{
    (void)state;
    struct cursor result;
    int cell = hand_over(MESSAGE_KMS_SERVE_CELL, bare_id(1), NOT_FOUND);
    assert_true(is_closed(cell));
    close(cell);
    create_key(1);
    _cleanup_close_ int live = new_cell(1);
    assert_ok(ask_id(&result, admin, MESSAGE_KEY_SHRED, 1));
    assert_true(is_closed(live)); /* what is erased has no cell */
    cell = hand_over(MESSAGE_KMS_SERVE_CELL, bare_id(1), NOT_FOUND);
    assert_true(is_closed(cell));
    close(cell);
    cell = hand_over(MESSAGE_KMS_SERVE_CELL, bare_id(0), BAD_FIELD);
    assert_true(is_closed(cell));
    close(cell);
}

static void a_failed_open_may_be_tried_again(void **state)
{
    (void)state;
    bool reached = true;
    unsigned failed = 0;
    for (uint8_t nth = 1; reached; nth++) {
        struct opened opened;
        create_key(nth);
        _cleanup_close_ int cell = new_cell(nth);
        disk_faults_arm(DISK_FAILS_ONCE, nth);
        status was = open_key(&opened, cell, SPAN(""));
        reached = disk_faults_disarm();
        assert_true(was == OK || (was == INTERNAL && reached));
        failed += was != OK;
        if (was != OK)
            assert_ok(open_key(&opened, cell, SPAN("")));
        assert_int_equal(opened.anchor.epoch, 1);
    }
    assert_true(failed > 4);
}

static unsigned premature;
static int watched[10];

static void look_for_answers(void)
{
    for (size_t i = 0; i < sizeof watched / sizeof *watched; i++) {
        struct pollfd poll_fd = {.fd = watched[i], .events = POLLIN};
        premature += poll(&poll_fd, 1, 0) > 0;
    }
}

static void ask_all(const struct opened *opened, uint64_t commits)
{
    for (size_t i = 0; i < sizeof watched / sizeof *watched; i++) {
        struct anchor anchor = anchor_of(&opened[i], commits, 4);
        put_move(&anchor, commits == 1 ? 0 : 4);
        send_message(watched[i], MESSAGE_ANCHOR_MOVE, buffer_span(&body), NULL, 0);
    }
}

static void the_moves_of_a_turn_share_one_sync_and_no_answer_leaves_before(void **state)
{
    (void)state;
    struct opened opened[10];
    struct cursor result;
    premature = 0;
    for (uint8_t i = 0; i < 10; i++) {
        create_key((uint8_t)(i + 1));
        watched[i] = new_cell((uint8_t)(i + 1));
        assert_ok(open_key(&opened[i], watched[i], SPAN("")));
    }
    ask_all(opened, 1);
    disk_faults_on_fdatasync = look_for_answers;
    disk_faults_arm(DISK_SOUND, 0);
    turns(1);
    assert_int_equal(disk_faults_fdatasyncs(), 1);
    assert_int_equal(premature, 0);
    for (int i = 0; i < 10; i++)
        assert_ok(answered(&result, watched[i], MESSAGE_ANCHOR_MOVE));
    ask_all(opened, 2);
    disk_faults_arm(DISK_FAILS_ONCE, 11); /* ten writes, then the sync */
    turns(1);
    assert_true(disk_faults_disarm());
    for (int i = 0; i < 10; i++)
        assert_int_equal(answered(&result, watched[i], MESSAGE_ANCHOR_MOVE), INTERNAL);
    ask_all(opened, 2); /* nothing happened, and it can be asked again */
    turns(1);
    for (int i = 0; i < 10; i++) {
        assert_ok(answered(&result, watched[i], MESSAGE_ANCHOR_MOVE));
        close(watched[i]);
    }
}

/* ---- control ---- */

static void the_state_of_a_key_is_told(void **state)
{
    (void)state;
    struct cursor result, shred;
    uint8_t told;
    static const uint8_t states[] = {0, 1, 2};
    for (size_t i = 0; i < 3; i++) {
        if (i == 1)
            create_key(1);
        if (i == 2)
            assert_ok(ask_id(&shred, admin, MESSAGE_KEY_SHRED, 1));
        int channels[] = {standing, admin};
        for (size_t j = 0; j < 2; j++) {
            assert_ok(ask_id(&result, channels[j], MESSAGE_KEY_STATE, 1));
            assert_ok(cursor_u8(&told, &result, &fault));
            assert_int_equal(told, states[i]);
            assert_int_equal(cursor_left(&result), HASH_BYTES + ANCHOR_WIRE_BYTES);
        }
    }
}

static void a_create_is_undone_by_a_discard_until_the_key_was_released(void **state)
{
    (void)state;
    struct cursor result;
    struct opened opened;
    create_key(1);
    assert_ok(ask_id(&result, standing, MESSAGE_KEY_DISCARD, 1));
    create_key(1);
    _cleanup_close_ int cell = new_cell(1);
    assert_ok(open_key(&opened, cell, SPAN("")));
    assert_int_equal(ask_id(&result, standing, MESSAGE_KEY_DISCARD, 1), CONFLICT);
    assert_int_equal(ask_id(&result, standing, MESSAGE_KEY_DISCARD, 0), BAD_FIELD);
}

static status sign_receipt(struct cursor *result, uint8_t n, const char *receipt)
{
    buffer_put(new_body(), bare_id(n));
    buffer_put_text_field(&body, receipt);
    return ask(result, standing, MESSAGE_RECEIPT_SIGN, buffer_span(&body));
}

static void write_receipt(char text[300], const char *id, const char *fingerprint)
{
    snprintf(text, 300, "{\"tenant_id\":\"%s\",\"kek_fingerprint\":\"%s\",\"at\":\"now\"}", id,
             fingerprint);
}

static void a_receipt_is_signed_for_its_own_shredded_tenant_only(void **state)
{
    (void)state;
    struct cursor result;
    struct verifier *verifier;
    uint8_t fingerprint[HASH_BYTES], signature[SIGNATURE_BYTES], signed_bytes[512];
    char hex[2 * HASH_BYTES + 1], receipt[300], other[300];
    create_key(1);
    create_key(2);
    assert_int_equal(sign_receipt(&result, 1, "{}"), CONFLICT);
    assert_ok(ask_id(&result, admin, MESSAGE_KEY_SHRED, 1));
    assert_ok(cursor_copy(fingerprint, &result, HASH_BYTES, &fault));
    hex_encode(hex, SPAN_OF(fingerprint));
    write_receipt(receipt, "01010101010101010101010101010101", hex);
    write_receipt(other, "02020202020202020202020202020202", hex);
    assert_int_equal(sign_receipt(&result, 1, other), BAD_FIELD);
    hex[0] = hex[0] == '0' ? '1' : '0';
    write_receipt(other, "01010101010101010101010101010101", hex);
    assert_int_equal(sign_receipt(&result, 1, other), BAD_FIELD);
    assert_int_equal(sign_receipt(&result, 1, "{}"), BAD_FIELD);
    assert_int_equal(sign_receipt(&result, 1, "no JSON"), BAD_JSON);
    assert_int_equal(sign_receipt(&result, 2, receipt), CONFLICT);
    assert_ok(sign_receipt(&result, 1, receipt));
    assert_ok(cursor_copy(signature, &result, SIGNATURE_BYTES, &fault));
    assert_ok(cursor_end(&result, &fault));
    struct buffer message = buffer_over(signed_bytes, sizeof signed_bytes);
    buffer_put_text(&message, "bulkhead receipt v1\n");
    buffer_put_text(&message, receipt);
    assert_ok(verifier_create(&verifier, platform_key, &fault));
    assert_ok(verifier_check(verifier, buffer_span(&message), signature, &fault));
    verifier_free(verifier);
}

static void put_mint(uint8_t n, const char *user, const char *scope, uint32_t ttl_seconds)
{
    buffer_put(new_body(), bare_id(n));
    buffer_put_text_field(&body, user);
    buffer_put_text_field(&body, "agent-7");
    buffer_put_text_field(&body, scope);
    buffer_put_text_field(&body, "confidential");
    buffer_put_u32(&body, ttl_seconds);
}

static void a_minted_token_verifies_and_says_what_was_asked(void **state)
{
    (void)state;
    struct cursor result;
    struct span token;
    struct claims claims;
    enum token_reason reason;
    struct token_verifier *verifier;
    create_key(0xab);
    put_mint(0xab, "ann", "memory:read memory:write", 900);
    assert_ok(ask(&result, admin, MESSAGE_TOKEN_MINT, buffer_span(&body)));
    assert_ok(cursor_field(&token, &result, TOKEN_MAX, "token", &fault));
    assert_ok(cursor_end(&result, &fault));
    const struct token_issuer issuer = token_issuer_builtin(issuer_key);
    assert_ok(token_verifier_create(&verifier, &fault));
    assert_ok(token_verifier_put(verifier, &issuer, &fault));
    assert_ok(token_verify(&claims, &reason, verifier, token, clock_wall_us() / 1000000, &fault));
    assert_string_equal(claims.tenant, "abababababababababababababababab");
    assert_true(claims.tenant_is_id);
    assert_string_equal(claims.user, "ann");
    assert_string_equal(claims.agent, "agent-7");
    assert_int_equal(claims.clearance, CLEARANCE_CONFIDENTIAL);
    assert_int_equal(claims.scopes, SCOPE_SET(SCOPE_MEMORY_READ) | SCOPE_SET(SCOPE_MEMORY_WRITE));
    assert_int_equal(claims.expires_at - claims.issued_at, 900);
    token_verifier_free(verifier);
}

static void a_token_is_minted_for_live_tenants_and_within_bounds_only(void **state)
{
    (void)state;
    struct cursor result;
    char longest[USER_MAX + 2];
    memset(longest, 'u', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    put_mint(1, "ann", "memory:read", 900);
    assert_int_equal(ask(&result, admin, MESSAGE_TOKEN_MINT, buffer_span(&body)), NOT_FOUND);
    create_key(1);
    put_mint(1, longest, "memory:read", 900);
    assert_int_equal(ask(&result, admin, MESSAGE_TOKEN_MINT, buffer_span(&body)), BAD_FIELD);
    put_mint(1, "ann", "memory:steal", 900);
    assert_int_equal(ask(&result, admin, MESSAGE_TOKEN_MINT, buffer_span(&body)), BAD_FIELD);
    put_mint(1, "ann", "memory:read", TOKEN_LIFETIME_MAX_SECONDS + 1);
    assert_int_equal(ask(&result, admin, MESSAGE_TOKEN_MINT, buffer_span(&body)), BAD_FIELD);
    longest[USER_MAX] = '\0';
    memset(longest, '"', USER_MAX); /* twice as long in JSON */
    put_mint(1, longest, "memory:read", 900);
    assert_ok(ask(&result, admin, MESSAGE_TOKEN_MINT, buffer_span(&body)));
    assert_ok(ask_id(&result, admin, MESSAGE_KEY_SHRED, 1));
    put_mint(1, "ann", "memory:read", 900);
    assert_int_equal(ask(&result, admin, MESSAGE_TOKEN_MINT, buffer_span(&body)), NOT_FOUND);
    put_mint(0, "ann", "memory:read", 900);
    assert_int_equal(ask(&result, admin, MESSAGE_TOKEN_MINT, buffer_span(&body)), BAD_FIELD);
}

/* ---- what must not be said ---- */

static const uint32_t every_type[] = {
    MESSAGE_REPLY, MESSAGE_START, MESSAGE_READY, MESSAGE_STOP, MESSAGE_CHANNEL, MESSAGE_JAILED,
    MESSAGE_KMS_SERVE_CELL, MESSAGE_KMS_SERVE_ADMIN, MESSAGE_KEY_OPEN, MESSAGE_ANCHOR_MOVE,
    MESSAGE_KEY_STATE, MESSAGE_KEY_DISCARD, MESSAGE_RECEIPT_SIGN, MESSAGE_KEY_CREATE,
    MESSAGE_KEY_SHRED, MESSAGE_TOKEN_MINT, MESSAGE_CELL_BLANK, MESSAGE_ADMIN_CALL, 0, UINT32_MAX};
enum { TYPES = sizeof every_type / sizeof *every_type };

static bool in_list(uint32_t type, const uint32_t *list, size_t count)
{
    bool found = false;
    for (size_t i = 0; i < count; i++)
        found = found || list[i] == type;
    return found;
}

static int fresh_cell(void)
{
    return new_cell(1);
}

static const uint32_t of_standing[] = {MESSAGE_KEY_OPEN, MESSAGE_ANCHOR_MOVE, MESSAGE_KEY_STATE,
                                       MESSAGE_KEY_DISCARD, MESSAGE_RECEIPT_SIGN};
static const uint32_t of_admin[] = {MESSAGE_KEY_STATE, MESSAGE_KEY_CREATE, MESSAGE_KEY_SHRED,
                                    MESSAGE_TOKEN_MINT};
static const uint32_t of_cell[] = {MESSAGE_KEY_OPEN, MESSAGE_ANCHOR_MOVE};

static const struct {
    int (*make)(void);
    const uint32_t *permitted;
    size_t count;
} kinds[] = {{new_standing, of_standing, 5}, {new_admin, of_admin, 4}, {fresh_cell, of_cell, 2}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void a_message_of_another_channel_ends_the_channel(void **state)
{
    (void)state;
    create_key(1);
    struct cursor result;
    for (size_t kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < TYPES; i++) {
            if (in_list(every_type[i], kinds[kind].permitted, kinds[kind].count))
                continue;
            _cleanup_close_ int fd = kinds[kind].make();
            send_message(fd, every_type[i], bare_id(1), NULL, 0);
            assert_true(is_closed(fd));
        }
    assert_ok(ask_id(&result, admin, MESSAGE_KEY_STATE, 1));
    assert_ok(kms_outcome(kms, &fault));
}

/* Every truncation of a well-formed body, one byte too many, and a descriptor too many. */
static void malformed(int (*make)(void), uint32_t type, struct span good)
{
    static uint8_t bytes[BODY_BYTES + 1];
    struct opened opened;
    memcpy(bytes, good.data, good.length);
    bytes[good.length] = 0;
    for (size_t length = 0; length <= good.length + 1; length++) {
        int fds[] = {STDERR_FILENO};
        _cleanup_close_ int fd = make();
        if (type == MESSAGE_ANCHOR_MOVE)
            assert_ok(open_key(&opened, fd, SPAN("")));
        send_message(fd, type, (struct span){bytes, length}, fds, length == good.length);
        assert_true(is_closed(fd));
    }
}

static void a_malformed_message_ends_its_channel_and_no_other(void **state)
{
    (void)state;
    static uint8_t good[BODY_BYTES];
    struct cursor result;
    struct anchor anchor = {.epoch = 1, .log_size = 9};
    create_key(1);
    malformed(fresh_cell, MESSAGE_KEY_OPEN, SPAN("\0\0\0\3abc"));
    put_move(&anchor, 4);
    memcpy(good, body.data, body.length);
    malformed(fresh_cell, MESSAGE_ANCHOR_MOVE, (struct span){good, body.length});
    static const uint32_t id_only[] = {MESSAGE_KEY_STATE, MESSAGE_KEY_CREATE, MESSAGE_KEY_SHRED};
    for (size_t i = 0; i < 3; i++)
        malformed(new_admin, id_only[i], bare_id(1));
    put_mint(1, "ann", "memory:read", 60);
    memcpy(good, body.data, body.length);
    malformed(new_admin, MESSAGE_TOKEN_MINT, (struct span){good, body.length});
    malformed(new_standing, MESSAGE_KEY_DISCARD, bare_id(1));
    buffer_put(new_body(), bare_id(1));
    buffer_put_text_field(&body, "{}");
    memcpy(good, body.data, body.length);
    malformed(new_standing, MESSAGE_RECEIPT_SIGN, (struct span){good, body.length});
    assert_ok(ask_id(&result, admin, MESSAGE_KEY_STATE, 1)); /* it was not shredded by any */
    assert_int_equal(result.next[0], KEY_LIVE);
}

static void lengths_beyond_their_bounds_are_malformed(void **state)
{
    (void)state;
    struct opened opened;
    static char receipt[4098];
    memset(receipt, ' ', sizeof receipt - 1);
    create_key(1);
    _cleanup_close_ int control = new_standing();
    buffer_put(new_body(), bare_id(1));
    buffer_put_text_field(&body, receipt);
    send_message(control, MESSAGE_RECEIPT_SIGN, buffer_span(&body), NULL, 0);
    assert_true(is_closed(control));
    _cleanup_close_ int cell = new_cell(1);
    assert_ok(open_key(&opened, cell, SPAN("")));
    struct anchor anchor = anchor_of(&opened, 1, 1);
    anchor_put(new_body(), &anchor);
    buffer_put_u16(&body, CONSISTENCY_PROOF_MAX + 1);
    for (int i = 0; i <= CONSISTENCY_PROOF_MAX; i++)
        buffer_put(&body, SPAN_OF(anchor.log_root));
    send_message(cell, MESSAGE_ANCHOR_MOVE, buffer_span(&body), NULL, 0);
    assert_true(is_closed(cell));
}

static uint64_t dice = 0x9e3779b97f4a7c15u;

static uint64_t roll(void)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return dice;
}

static void random_bytes_on_any_channel_hurt_nobody_else(void **state)
{
    (void)state;
    struct cursor result;
    struct opened opened, again;
    create_key(1);
    create_key(9);
    _cleanup_close_ int bystander = new_cell(9);
    assert_ok(open_key(&opened, bystander, SPAN("")));
    for (int round = 0; round < 4000; round++) {
        size_t kind = roll() % KINDS, length = roll() % 300;
        static uint8_t bytes[300 + IPC_HEADER_BYTES];
        _cleanup_close_ int fd = kinds[kind].make();
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = roll() % 3 ? 0 : (uint8_t)roll();
        struct buffer head = buffer_over(bytes, 8);
        buffer_put_u32(&head, roll() % 5 ? kinds[kind].permitted[roll() % kinds[kind].count]
                                         : (uint32_t)roll());
        if (roll() % 4 == 0)
            memcpy(bytes + 8, id_of(1), TENANT_ID_BYTES);
        assert_true(send(fd, bytes, length, MSG_NOSIGNAL) == (ssize_t)length);
        turns(1);
    }
    _cleanup_close_ int operator = new_admin();
    assert_ok(ask_id(&result, operator, MESSAGE_KEY_STATE, 9));
    assert_int_equal(result.next[0], KEY_LIVE);
    struct anchor anchor = anchor_of(&opened, 1, 1);
    put_move(&anchor, 0);
    assert_ok(ask(&result, bystander, MESSAGE_ANCHOR_MOVE, buffer_span(&body)));
    _cleanup_close_ int later = new_cell(9);
    assert_ok(open_key(&again, later, (struct span){opened.wrapped, opened.wrapped_length}));
    assert_memory_equal(again.dek, opened.dek, KEY_BYTES);
}

static void a_peer_that_asks_and_never_listens_is_bounded_and_alone(void **state)
{
    (void)state;
    _cleanup_close_ int greedy = new_admin();
    unsigned asked = 0;
    for (int quiet = 0; quiet < 50 && asked < 20000; quiet++) {
        while (ipc_send(greedy, MESSAGE_KEY_STATE, 1, bare_id(1), NULL, 0, &fault) == OK) {
            asked++;
            quiet = 0;
        }
        turns(1);
    }
    assert_true(asked > 100 && asked < 20000);
    everybody_else_is_served();
    unsigned heard = 0;
    for (int i = 0; i < 40000 && heard < asked; i++) {
        if (ipc_receive(&answer, greedy, packet, &fault) == OK)
            heard++;
        else
            turns(1);
    }
    assert_int_equal(heard, asked); /* and each was answered when it listened at last */
}

/* ---- the supervisor ---- */

static void stop_ends_the_loop_with_nothing_wrong(void **state)
{
    (void)state;
    send_message(supervisor, MESSAGE_STOP, SPAN(""), NULL, 0);
    assert_ok(loop_run(loop, &fault));
    assert_ok(kms_outcome(kms, &fault));
}

static void without_its_supervisor_the_kms_stops(void **state)
{
    (void)state;
    cleanup_close(&supervisor);
    assert_ok(loop_run(loop, &fault));
    assert_int_equal(kms_outcome(kms, &fault), CLOSED);
}

static void a_supervisor_that_talks_nonsense_is_the_end(void **state)
{
    (void)state;
    send_message(supervisor, MESSAGE_KEY_SHRED, bare_id(1), NULL, 0);
    assert_ok(loop_run(loop, &fault));
    assert_int_equal(kms_outcome(kms, &fault), BAD_REQUEST);
}

static void admin_channels_are_bounded(void **state)
{
    (void)state;
    int admins[64];
    for (int i = 0; i < 63; i++)
        admins[i] = new_admin(); /* one stands since the start */
    buffer_put_u32(new_body(), 0);
    admins[63] = hand_over(MESSAGE_KMS_SERVE_ADMIN, buffer_span(&body), QUOTA_EXCEEDED);
    assert_true(is_closed(admins[63]));
    for (int i = 0; i < 64; i++)
        close(admins[i]);
    turns(20);
    _cleanup_close_ int again = new_admin();
    everybody_else_is_served();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_cell_gets_the_key_of_its_tenant_and_moves_its_anchor),
        TEST(two_tenants_get_two_keys),
        TEST(control_opens_the_platforms_own_silo),
        TEST(the_key_is_given_once_a_channel),
        TEST(an_anchor_before_the_key_ends_the_channel),
        TEST(a_refused_anchor_is_answered_and_ends_the_channel),
        TEST(an_unknown_or_shredded_tenant_has_no_cell),
        TEST(a_failed_open_may_be_tried_again),
        TEST(the_moves_of_a_turn_share_one_sync_and_no_answer_leaves_before),
        TEST(the_state_of_a_key_is_told),
        TEST(a_create_is_undone_by_a_discard_until_the_key_was_released),
        TEST(a_receipt_is_signed_for_its_own_shredded_tenant_only),
        TEST(a_minted_token_verifies_and_says_what_was_asked),
        TEST(a_token_is_minted_for_live_tenants_and_within_bounds_only),
        TEST(a_message_of_another_channel_ends_the_channel),
        TEST(a_malformed_message_ends_its_channel_and_no_other),
        TEST(lengths_beyond_their_bounds_are_malformed),
        TEST(random_bytes_on_any_channel_hurt_nobody_else),
        TEST(a_peer_that_asks_and_never_listens_is_bounded_and_alone),
        TEST(stop_ends_the_loop_with_nothing_wrong),
        TEST(without_its_supervisor_the_kms_stops),
        TEST(a_supervisor_that_talks_nonsense_is_the_end),
        TEST(admin_channels_are_bounded),
    };
    struct fault why;
    log_open("kms", LOG_ERROR + 1); /* what is refused here is refused on purpose */
    if (crypt_start(&why) != OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
