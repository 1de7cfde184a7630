/* What the peers of the kms must not say, and what it costs them, and nobody else. */
#include "house.h"

#include "base/cleanup.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- what must not be said ---- */

static const uint32_t every_type[] = {
    MESSAGE_REPLY, MESSAGE_START, MESSAGE_READY, MESSAGE_STOP, MESSAGE_CHANNEL, MESSAGE_JAILED,
    MESSAGE_KMS_SERVE_CELL, MESSAGE_KMS_SERVE_ADMIN, MESSAGE_KEY_OPEN, MESSAGE_ANCHOR_MOVE,
    MESSAGE_KEY_STATE, MESSAGE_KEY_DISCARD, MESSAGE_RECEIPT_SIGN, MESSAGE_KEY_CREATE,
    MESSAGE_KEY_SHRED, MESSAGE_TOKEN_MINT, MESSAGE_CHARTER, MESSAGE_CHARTER_SIGN,
    MESSAGE_KEY_NEXT, MESSAGE_KEY_DROP, MESSAGE_KEY_KEPT, MESSAGE_KEK_ROTATE, MESSAGE_KEY_DISABLE,
    MESSAGE_KEY_ENABLE, MESSAGE_ANCHOR_RESTORE,
    MESSAGE_CELL_BLANK, MESSAGE_ADMIN_CALL, 0, UINT32_MAX};
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
                                       MESSAGE_KEY_DISCARD, MESSAGE_RECEIPT_SIGN,
                                       MESSAGE_CHARTER_SIGN};
static const uint32_t of_admin[] = {MESSAGE_KEY_STATE, MESSAGE_KEY_CREATE, MESSAGE_KEY_SHRED,
                                    MESSAGE_TOKEN_MINT, MESSAGE_CHARTER_SIGN, MESSAGE_KEK_ROTATE,
                                    MESSAGE_KEY_DISABLE, MESSAGE_KEY_ENABLE,
                                    MESSAGE_ANCHOR_RESTORE};
static const uint32_t of_cell[] = {MESSAGE_KEY_OPEN, MESSAGE_ANCHOR_MOVE, MESSAGE_KEY_NEXT,
                                   MESSAGE_KEY_DROP, MESSAGE_KEY_KEPT};
#define LIST(list) list, sizeof(list) / sizeof *(list)

static const struct {
    int (*make)(void);
    const uint32_t *permitted;
    size_t count;
} kinds[] = {{new_standing, LIST(of_standing)}, {new_admin, LIST(of_admin)},
             {fresh_cell, LIST(of_cell)}};
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
    buffer_put(new_body(), bare_id(1));
    buffer_put_u64(&body, 1);
    buffer_put_text_field(&body, "{}");
    memcpy(good, body.data, body.length);
    malformed(new_admin, MESSAGE_CHARTER_SIGN, (struct span){good, body.length});
    malformed(new_standing, MESSAGE_CHARTER_SIGN, (struct span){good, body.length});
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

static void a_new_control_finds_no_operator_of_its_predecessor(void **state)
{
    (void)state;
    struct cursor result;
    _cleanup_close_ int former = new_admin();
    create_key(1);
    assert_ok(ask_id(&result, former, MESSAGE_KEY_STATE, 1));
    _cleanup_close_ int control = new_standing();
    assert_true(is_closed(former));
    assert_ok(ask_id(&result, control, MESSAGE_KEY_STATE, 1));
    assert_int_equal(result.next[0], KEY_LIVE);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_message_of_another_channel_ends_the_channel),
        TEST(a_malformed_message_ends_its_channel_and_no_other),
        TEST(lengths_beyond_their_bounds_are_malformed),
        TEST(random_bytes_on_any_channel_hurt_nobody_else),
        TEST(a_peer_that_asks_and_never_listens_is_bounded_and_alone),
        TEST(stop_ends_the_loop_with_nothing_wrong),
        TEST(without_its_supervisor_the_kms_stops),
        TEST(a_supervisor_that_talks_nonsense_is_the_end),
        TEST(a_new_control_finds_no_operator_of_its_predecessor),
        TEST(admin_channels_are_bounded),
    };
    return HOUSE_RUN(tests);
}
