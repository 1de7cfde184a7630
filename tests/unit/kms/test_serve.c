/* What the peers of the kms may ask, and what they get. */
#include "disk_faults.h"
#include "house.h"

#include "authz/token.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/sanitized.h"
#include "crypt/note.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>

enum { MAPPING_MAX = 1 << 26 };

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

/* Copies of the masked bytes in all writable memory of this process. */
static unsigned copies_in_memory(const uint8_t masked[KEY_BYTES])
{
    unsigned copies = 0;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps)) {
        uintptr_t from, to;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " rw", &from, &to) != 2
            || !strstr(line, " rw") || to - from > MAPPING_MAX)
            continue;
        for (const uint8_t *at = (const uint8_t *)from; at + KEY_BYTES <= (const uint8_t *)to;
             at++) {
            size_t i = 0;
            while (i < KEY_BYTES && (at[i] ^ 0xa5) == masked[i])
                i++;
            copies += i == KEY_BYTES;
        }
    }
    fclose(maps);
    return copies;
}

static void no_copy_of_a_key_or_token_stays_behind_an_answer(void **state)
{
    (void)state;
    struct opened opened;
    struct cursor result;
    struct span token;
    uint8_t masked[KEY_BYTES], piece[KEY_BYTES];
    if (SANITIZED)
        skip(); /* what it has poisoned cannot be read */
    create_key(1);
    _cleanup_close_ int cell = new_cell(1);
    assert_ok(open_key(&opened, cell, SPAN("")));
    for (size_t i = 0; i < KEY_BYTES; i++)
        masked[i] = opened.dek[i] ^ 0xa5;
    assert_true(copies_in_memory(masked) >= 1); /* ours */
    explicit_bzero(&opened, sizeof opened);
    explicit_bzero(packet, sizeof packet);
    assert_int_equal(copies_in_memory(masked), 0);
    put_mint(1, "ann", "memory:read", 900);
    assert_ok(ask(&result, admin, MESSAGE_TOKEN_MINT, buffer_span(&body)));
    assert_ok(cursor_field(&token, &result, TOKEN_MAX, "token", &fault));
    memcpy(piece, token.data + token.length - 40, KEY_BYTES); /* of its signature */
    for (size_t i = 0; i < KEY_BYTES; i++)
        masked[i] = piece[i] ^ 0xa5;
    assert_true(copies_in_memory(masked) >= 2);
    explicit_bzero(piece, sizeof piece);
    explicit_bzero(packet, sizeof packet);
    assert_int_equal(copies_in_memory(masked), 0);
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
            assert_int_equal(cursor_left(&result), HASH_BYTES + ANCHOR_WIRE_BYTES + 3 * 4 + 2);
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

static void a_token_of_the_platform_reads_routes_and_nothing_else(void **state)
{
    (void)state;
    struct cursor result;
    struct span token;
    struct claims claims;
    enum token_reason reason;
    struct token_verifier *verifier;
    static const char *const refused[] = {"", "memory:read", "routes:read memory:read"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        put_mint(0, "back-end", refused[i], 900);
        assert_int_equal(ask(&result, admin, MESSAGE_TOKEN_MINT, buffer_span(&body)), BAD_FIELD);
    }
    create_key(1);
    put_mint(1, "back-end", "routes:read", 900);
    assert_int_equal(ask(&result, admin, MESSAGE_TOKEN_MINT, buffer_span(&body)), BAD_FIELD);
    put_mint(0, "back-end", "routes:read", 900);
    assert_ok(ask(&result, admin, MESSAGE_TOKEN_MINT, buffer_span(&body)));
    assert_ok(cursor_field(&token, &result, TOKEN_MAX, "token", &fault));
    const struct token_issuer issuer = token_issuer_builtin(issuer_key);
    assert_ok(token_verifier_create(&verifier, &fault));
    assert_ok(token_verifier_put(verifier, &issuer, &fault));
    assert_ok(token_verify(&claims, &reason, verifier, token, clock_wall_us() / 1000000, &fault));
    assert_true(claims.platform);
    assert_int_equal(claims.scopes, SCOPE_SET(SCOPE_ROUTES_READ));
    token_verifier_free(verifier);
}

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
        TEST(no_copy_of_a_key_or_token_stays_behind_an_answer),
        TEST(the_state_of_a_key_is_told),
        TEST(a_create_is_undone_by_a_discard_until_the_key_was_released),
        TEST(a_receipt_is_signed_for_its_own_shredded_tenant_only),
        TEST(a_minted_token_verifies_and_says_what_was_asked),
        TEST(a_token_is_minted_for_live_tenants_and_within_bounds_only),
        TEST(a_token_of_the_platform_reads_routes_and_nothing_else),
    };
    return HOUSE_RUN(tests);
}
