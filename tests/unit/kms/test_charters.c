/* Charters: which of them the kms signs, and who hears of it. */
#include "disk_faults.h"
#include "house.h"

#include "base/cleanup.h"
#include "base/hex.h"
#include "crypt/note.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

static char largest[CHARTER_MAX + 1];

static status sign_text(int fd, uint8_t n, uint64_t sequence, const char *document)
{
    const struct signed_charter charter = charter_of(n, sequence, document);
    return sign(fd, &charter);
}

static int open_cell(uint8_t n, struct opened *opened)
{
    int cell = new_cell(n);
    struct span wrapped = {opened->wrapped, opened->wrapped_length};
    struct opened now;
    assert_ok(open_key(&now, cell, wrapped));
    if (now.wrapped_length == 0) { /* it was not new */
        memcpy(now.wrapped, opened->wrapped, sizeof now.wrapped);
        now.wrapped_length = opened->wrapped_length;
    }
    *opened = now;
    return cell;
}

static void assert_quiet(int fd)
{
    turns(2);
    assert_int_equal(ipc_receive(&answer, fd, packet, &fault), AGAIN);
}

static void assert_told(int fd, uint8_t n, uint64_t sequence, const char *document)
{
    struct signed_charter told;
    struct verifier *verifier;
    static uint8_t storage[CHARTER_SIGNED_MAX];
    struct buffer message = buffer_over(storage, sizeof storage);
    turns(2);
    assert_ok(ipc_receive(&answer, fd, packet, &fault));
    assert_int_equal(answer.type, MESSAGE_CHARTER);
    assert_int_equal(answer.fd_count, 0);
    struct cursor cursor = cursor_over(answer.body);
    assert_ok(signed_charter_get(&told, &cursor, &fault));
    assert_ok(cursor_end(&cursor, &fault));
    assert_memory_equal(told.id, id_of(n), TENANT_ID_BYTES);
    assert_int_equal(told.sequence, sequence);
    assert_true(span_is(told.document, document));
    charter_signed_bytes(&message, told.id, told.sequence, told.document);
    assert_ok(verifier_create(&verifier, platform_key, &fault));
    assert_ok(verifier_check(verifier, buffer_span(&message), told.signature, &fault));
    verifier_free(verifier);
}

static void assert_head(const struct charter_head *head, uint8_t n, uint64_t sequence,
                        const char *document)
{
    uint8_t due[HASH_BYTES];
    charter_hash(due, id_of(n), sequence, span_of_text(document));
    assert_int_equal(head->sequence, sequence);
    assert_memory_equal(head->hash, due, HASH_BYTES);
}

static void assert_no_head(const struct charter_head *head)
{
    static const uint8_t none[HASH_BYTES];
    assert_int_equal(head->sequence, 0);
    assert_memory_equal(head->hash, none, HASH_BYTES);
}

/* ---- what is signed ---- */

static void a_charter_out_of_order_is_not_signed(void **state)
{
    (void)state;
    create_key(1);
    static const uint64_t wrong[] = {0, 2, 3, 1000, UINT64_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(sign_text(admin, 1, wrong[i], "first"), CONFLICT);
    assert_ok(sign_text(admin, 1, 1, "first"));
    assert_ok(sign_text(admin, 1, 2, "second"));
    static const uint64_t later[] = {0, 4, 5, UINT64_MAX};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        assert_int_equal(sign_text(admin, 1, later[i], "third"), CONFLICT);
    assert_ok(sign_text(admin, 1, 3, "third"));
}

static void an_older_charter_is_never_signed_again(void **state)
{
    (void)state;
    create_key(1);
    assert_ok(sign_text(admin, 1, 1, "first"));
    assert_ok(sign_text(admin, 1, 1, "first")); /* the newest as often as asked */
    assert_ok(sign_text(admin, 1, 2, "second"));
    assert_int_equal(sign_text(admin, 1, 1, "first"), CONFLICT);
    assert_int_equal(sign_text(standing, 1, 1, "first"), CONFLICT);
    assert_ok(sign_text(admin, 1, 2, "second"));
}

static void no_second_document_gets_a_sequence_that_was_given(void **state)
{
    (void)state;
    create_key(1);
    assert_ok(sign_text(admin, 1, 1, "first"));
    assert_int_equal(sign_text(admin, 1, 1, "First"), CONFLICT);
    assert_int_equal(sign_text(admin, 1, 1, "first "), CONFLICT);
    assert_int_equal(sign_text(standing, 1, 1, "First"), CONFLICT);
}

static void scopes_count_for_themselves(void **state)
{
    (void)state;
    create_key(1);
    create_key(2);
    assert_ok(sign_text(admin, 1, 1, "first"));
    assert_int_equal(sign_text(admin, 2, 2, "second"), CONFLICT);
    assert_ok(sign_text(admin, 0, 1, "platform"));
    assert_ok(sign_text(admin, 2, 1, "first"));
    assert_ok(sign_text(admin, 0, 2, "platform"));
}

/* Control by itself can have signed again what an operator had signed, and nothing else. */
static void the_standing_channel_gets_only_the_newest_again(void **state)
{
    (void)state;
    create_key(1);
    assert_int_equal(sign_text(standing, 1, 1, "first"), CONFLICT);
    assert_int_equal(sign_text(standing, 0, 1, "platform"), CONFLICT);
    assert_ok(sign_text(admin, 1, 1, "first"));
    assert_ok(sign_text(standing, 1, 1, "first"));
    assert_int_equal(sign_text(standing, 1, 2, "second"), CONFLICT);
    assert_ok(sign_text(admin, 1, 2, "second"));
    assert_ok(sign_text(standing, 1, 2, "second"));
    everybody_else_is_served();
}

static void a_cell_that_asks_for_a_charter_loses_its_channel(void **state)
{
    (void)state;
    create_key(1);
    for (int opens = 0; opens < 2; opens++) {
        struct opened opened = {0};
        _cleanup_close_ int cell = opens ? open_cell(1, &opened) : new_cell(1);
        buffer_put(new_body(), bare_id(1));
        buffer_put_u64(&body, 1);
        buffer_put_text_field(&body, "first");
        send_message(cell, MESSAGE_CHARTER_SIGN, buffer_span(&body), NULL, 0);
        assert_true(is_closed(cell));
    }
    assert_ok(sign_text(admin, 1, 1, "first")); /* nothing was signed for it */
}

static void charters_are_signed_for_live_tenants_only(void **state)
{
    (void)state;
    struct cursor result;
    assert_int_equal(sign_text(admin, 1, 1, "first"), NOT_FOUND);
    create_key(1);
    assert_ok(sign_text(admin, 1, 1, "first"));
    assert_ok(ask_id(&result, admin, MESSAGE_KEY_SHRED, 1));
    assert_int_equal(sign_text(admin, 1, 1, "first"), NOT_FOUND);
    assert_int_equal(sign_text(admin, 1, 2, "second"), NOT_FOUND);
    assert_int_equal(sign_text(standing, 1, 1, "first"), NOT_FOUND);
}

static void a_document_has_its_bounds(void **state)
{
    (void)state;
    create_key(1);
    assert_int_equal(sign_text(admin, 1, 1, ""), BAD_FIELD);
    memset(largest, 'x', CHARTER_MAX);
    assert_ok(sign_text(admin, 1, 1, largest));
    _cleanup_close_ int excessive = new_admin();
    buffer_put(new_body(), bare_id(1));
    buffer_put_u64(&body, 2);
    buffer_put_u32(&body, CHARTER_MAX + 1);
    buffer_put(&body, (struct span){(const uint8_t *)largest, CHARTER_MAX});
    buffer_put_u8(&body, 'x');
    send_message(excessive, MESSAGE_CHARTER_SIGN, buffer_span(&body), NULL, 0);
    assert_true(is_closed(excessive));
    assert_ok(sign_text(admin, 1, 2, "second"));
}

/* ---- who hears of it ---- */

static void the_key_comes_with_the_heads_in_force(void **state)
{
    (void)state;
    struct opened one = {0}, two = {0}, control = {0};
    create_key(1);
    create_key(2);
    _cleanup_close_ int first = open_cell(1, &one);
    assert_no_head(&one.own);
    assert_no_head(&one.platform);
    assert_ok(sign_text(admin, 1, 1, "first"));
    assert_ok(sign_text(admin, 1, 2, "second"));
    assert_ok(sign_text(admin, 0, 1, "platform"));
    _cleanup_close_ int again = open_cell(1, &one), other = open_cell(2, &two);
    assert_head(&one.own, 1, 2, "second");
    assert_head(&one.platform, 0, 1, "platform");
    assert_no_head(&two.own);
    assert_head(&two.platform, 0, 1, "platform");
    assert_ok(open_key(&control, standing, SPAN("")));
    assert_head(&control.own, 0, 1, "platform");
    assert_head(&control.platform, 0, 1, "platform");
}

static void an_awake_cell_is_told_of_its_own_charter_and_of_no_others(void **state)
{
    (void)state;
    struct opened one = {0}, two = {0};
    create_key(1);
    create_key(2);
    _cleanup_close_ int first = open_cell(1, &one), second = open_cell(2, &two);
    assert_ok(sign_text(admin, 1, 1, "first"));
    assert_told(first, 1, 1, "first");
    assert_quiet(second);
    assert_ok(sign_text(admin, 1, 1, "first")); /* it knows that one */
    assert_int_equal(sign_text(admin, 1, 1, "other"), CONFLICT);
    assert_int_equal(sign_text(admin, 1, 5, "other"), CONFLICT);
    assert_quiet(first);
    memset(largest, 'y', CHARTER_MAX);
    assert_ok(sign_text(admin, 1, 2, largest));
    assert_told(first, 1, 2, largest);
    assert_quiet(standing);
    assert_quiet(admin);
    assert_quiet(supervisor);
}

static void all_awake_cells_are_told_of_the_platforms_charter(void **state)
{
    (void)state;
    enum { CELLS = 20 };
    int cells[CELLS];
    for (uint8_t n = 0; n < CELLS; n++) {
        struct opened opened = {0};
        create_key((uint8_t)(n + 1));
        cells[n] = open_cell((uint8_t)(n + 1), &opened);
    }
    create_key(200);
    _cleanup_close_ int waking = new_cell(200); /* it will learn it with its key */
    assert_ok(sign_text(admin, 0, 1, "platform"));
    for (int i = 0; i < CELLS; i++) {
        assert_told(cells[i], 0, 1, "platform");
        assert_quiet(cells[i]);
        close(cells[i]);
    }
    assert_quiet(waking);
    assert_quiet(standing);
}

static void a_charter_of_the_turn_that_gives_the_key_comes_behind_the_key(void **state)
{
    (void)state;
    struct opened opened = {0};
    struct cursor result;
    create_key(1);
    close(open_cell(1, &opened));
    for (uint64_t sequence = 1; sequence <= 8; sequence++) { /* whichever is read first */
        _cleanup_close_ int cell = new_cell(1), operator = new_admin();
        buffer_put_field(new_body(), (struct span){opened.wrapped, opened.wrapped_length});
        if (sequence % 2)
            send_message(cell, MESSAGE_KEY_OPEN, buffer_span(&body), NULL, 0);
        struct buffer open_body = body;
        uint8_t storage[256];
        struct buffer charter = buffer_over(storage, sizeof storage);
        buffer_put(&charter, bare_id(1));
        buffer_put_u64(&charter, sequence);
        buffer_put_text_field(&charter, "next");
        send_message(operator, MESSAGE_CHARTER_SIGN, buffer_span(&charter), NULL, 0);
        if (sequence % 2 == 0)
            send_message(cell, MESSAGE_KEY_OPEN, buffer_span(&open_body), NULL, 0);
        assert_ok(answered(&result, cell, MESSAGE_KEY_OPEN));
        assert_told(cell, 1, sequence, "next");
        assert_quiet(cell);
    }
}

static unsigned premature;
static int watched[3];

static void look_for_messages(void)
{
    for (size_t i = 0; i < 3; i++) {
        struct pollfd poll_fd = {.fd = watched[i], .events = POLLIN};
        premature += poll(&poll_fd, 1, 0) > 0;
    }
}

static void nobody_hears_of_a_charter_before_it_is_durable(void **state)
{
    (void)state;
    struct opened one = {0}, two = {0};
    create_key(1);
    create_key(2);
    _cleanup_close_ int first = open_cell(1, &one), second = open_cell(2, &two);
    premature = 0;
    watched[0] = first;
    watched[1] = second;
    watched[2] = admin;
    disk_faults_on_fdatasync = look_for_messages;
    disk_faults_arm(DISK_SOUND, 0);
    assert_ok(sign_text(admin, 0, 1, "platform"));
    assert_int_equal(disk_faults_fdatasyncs(), 1);
    assert_int_equal(premature, 0);
    assert_told(first, 0, 1, "platform");
    assert_told(second, 0, 1, "platform");
    bool reached = true;
    unsigned refused = 0;
    for (unsigned nth = 1; reached; nth++) {
        disk_faults_arm(DISK_FAILS_ONCE, nth);
        status was = sign_text(admin, 1, nth, "next");
        reached = disk_faults_disarm();
        assert_true(reached == (was != OK));
        if (was != OK) {
            refused++;
            assert_quiet(first);
            assert_ok(sign_text(admin, 1, nth, "next"));
        }
        assert_told(first, 1, nth, "next");
    }
    assert_true(refused >= 2); /* the write, and its sync */
    assert_quiet(second);
}

static void a_cell_that_takes_nothing_is_cut_off_and_nobody_waits_for_it(void **state)
{
    (void)state;
    struct opened one = {0}, two = {0};
    create_key(1);
    create_key(2);
    struct cursor result;
    _cleanup_close_ int slow = open_cell(1, &one), quick = open_cell(2, &two);
    memset(largest, 'z', CHARTER_MAX);
    bool open = true;
    uint64_t sequence = 0;
    while (open && sequence < 1000) {
        assert_ok(sign_text(admin, 0, ++sequence, largest));
        assert_told(quick, 0, sequence, largest);
        struct pollfd poll_fd = {.fd = slow};
        assert_true(poll(&poll_fd, 1, 0) >= 0);
        open = !(poll_fd.revents & POLLHUP);
    }
    assert_false(open);
    assert_true(sequence > 2);
    assert_int_equal(answered(&result, supervisor, MESSAGE_KMS_SERVE_CELL), UNAVAILABLE);
    _cleanup_close_ int renewed = open_cell(1, &one);
    assert_head(&one.platform, 0, sequence, largest);
    everybody_else_is_served();
}

static void charters_without_end_are_bounded_a_turn(void **state)
{
    (void)state;
    enum { OPERATORS = 6, EACH = 3 };
    struct opened opened = {0};
    int operators[OPERATORS];
    struct cursor result;
    memset(largest, 'w', CHARTER_MAX);
    create_key(100);
    _cleanup_close_ int cell = open_cell(100, &opened);
    for (uint8_t i = 0; i < OPERATORS; i++) {
        create_key((uint8_t)(i + 1));
        operators[i] = new_admin();
    }
    for (uint8_t i = 0; i < OPERATORS; i++) /* all of them wait for the one turn that comes */
        for (uint64_t sequence = 1; sequence <= EACH; sequence++) {
            buffer_put(new_body(), bare_id((uint8_t)(i + 1)));
            buffer_put_u64(&body, sequence);
            buffer_put_text_field(&body, largest);
            send_message(operators[i], MESSAGE_CHARTER_SIGN, buffer_span(&body), NULL, 0);
        }
    turns(20);
    for (int i = 0; i < OPERATORS; i++) {
        for (int j = 0; j < EACH; j++)
            assert_ok(answered(&result, operators[i], MESSAGE_CHARTER_SIGN));
        close(operators[i]);
    }
    assert_quiet(cell);
}

/* ---- what lasts ---- */

static void restart_kms(void)
{
    int ends[2];
    kms = kms_free(kms);
    store = keystore_close(store);
    cleanup_close(&supervisor);
    cleanup_close(&standing);
    cleanup_close(&admin);
    store = store_open_in(directory);
    assert_ok(ipc_pair(ends, &fault));
    supervisor = ends[0];
    assert_ok(kms_serve(&kms, loop, store, ends[1], &fault));
    assert_ok(ipc_receive(&answer, supervisor, packet, &fault));
    standing = new_standing();
    admin = new_admin();
}

static void a_head_survives_a_restart_of_the_kms(void **state)
{
    (void)state;
    struct opened opened = {0};
    create_key(1);
    close(open_cell(1, &opened));
    assert_ok(sign_text(admin, 1, 1, "first"));
    assert_ok(sign_text(admin, 1, 2, "second"));
    assert_ok(sign_text(admin, 0, 1, "platform"));
    restart_kms();
    _cleanup_close_ int cell = open_cell(1, &opened);
    assert_head(&opened.own, 1, 2, "second");
    assert_head(&opened.platform, 0, 1, "platform");
    struct anchor anchor = anchor_of(&opened, 3, 9);
    struct cursor result;
    put_move(&anchor, 0);
    assert_ok(ask(&result, cell, MESSAGE_ANCHOR_MOVE, buffer_span(&body)));
    restart_kms();
    assert_int_equal(sign_text(admin, 1, 1, "first"), CONFLICT);
    assert_ok(sign_text(standing, 1, 2, "second"));
    assert_ok(sign_text(admin, 1, 3, "third"));
    _cleanup_close_ int later = open_cell(1, &opened);
    assert_int_equal(opened.anchor.log_size, 9);
    assert_head(&opened.own, 1, 3, "third");
}

/* ---- one key, three kinds of signed things ---- */

static void what_is_signed_for_one_purpose_is_good_for_no_other(void **state)
{
    (void)state;
    static const char *const beginnings[] = {"bulkhead/", "bulkhead receipt v1\n",
                                             "bulkhead charter v1\n"};
    static const enum sign_purpose purposes[] = {SIGN_CHECKPOINT, SIGN_RECEIPT, SIGN_CHARTER};
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < 3; j++) {
            char message[64];
            snprintf(message, sizeof message, "%sx", beginnings[i]);
            assert_int_equal(keystore_may_sign(purposes[j], span_of_text(message)), i == j);
            assert_false(keystore_may_sign(SIGN_TOKEN, span_of_text(message)));
            message[strlen(message) - 1] = '\0';
            assert_false(keystore_may_sign(purposes[j], span_of_text(message)));
        }
    assert_false(keystore_may_sign(SIGN_CHARTER, SPAN("")));
}

/* The document that comes closest to being the text of a checkpoint or of a receipt. */
static void a_charter_is_no_checkpoint_and_no_receipt(void **state)
{
    (void)state;
    static const char *const documents[] = {
        "bulkhead/ledger\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        "bulkhead receipt v1\n{}", "\nbulkhead/ledger\n1\n"};
    struct verifier *verifier;
    struct cursor result;
    assert_ok(verifier_create(&verifier, platform_key, &fault));
    for (uint64_t i = 0; i < 3; i++) {
        uint8_t signature[SIGNATURE_BYTES];
        buffer_put(new_body(), bare_id(0));
        buffer_put_u64(&body, i + 1);
        buffer_put_text_field(&body, documents[i]);
        assert_ok(ask(&result, admin, MESSAGE_CHARTER_SIGN, buffer_span(&body)));
        assert_ok(cursor_copy(signature, &result, SIGNATURE_BYTES, &fault));
        assert_int_equal(verifier_check(verifier, span_of_text(documents[i]), signature, &fault),
                         UNAUTHENTICATED);
    }
    verifier_free(verifier);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_charter_out_of_order_is_not_signed),
        TEST(an_older_charter_is_never_signed_again),
        TEST(no_second_document_gets_a_sequence_that_was_given),
        TEST(scopes_count_for_themselves),
        TEST(the_standing_channel_gets_only_the_newest_again),
        TEST(a_cell_that_asks_for_a_charter_loses_its_channel),
        TEST(charters_are_signed_for_live_tenants_only),
        TEST(a_document_has_its_bounds),
        TEST(the_key_comes_with_the_heads_in_force),
        TEST(an_awake_cell_is_told_of_its_own_charter_and_of_no_others),
        TEST(all_awake_cells_are_told_of_the_platforms_charter),
        TEST(a_charter_of_the_turn_that_gives_the_key_comes_behind_the_key),
        TEST(nobody_hears_of_a_charter_before_it_is_durable),
        TEST(a_cell_that_takes_nothing_is_cut_off_and_nobody_waits_for_it),
        TEST(charters_without_end_are_bounded_a_turn),
        TEST(a_head_survives_a_restart_of_the_kms),
        TEST(what_is_signed_for_one_purpose_is_good_for_no_other),
        TEST(a_charter_is_no_checkpoint_and_no_receipt),
    };
    return HOUSE_RUN(tests);
}
