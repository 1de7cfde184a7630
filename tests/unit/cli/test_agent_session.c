#define _GNU_SOURCE
/* The host's side of a command in a sandbox, against a guest that says what no honest agent
 * does. */
#include "cli/agent_session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { ID = 1 };

struct world {
    struct agent_session session;
    struct buffer said; /* by the guest */
};

static void begin(struct world *world, uint8_t flags)
{
    struct agent_exec exec = {.arguments = {SPAN("sh")}, .argument_count = 1, .flags = flags};
    struct fault fault;
    agent_session_free(&world->session);
    buffer_clear(&world->said);
    assert_int_equal(agent_session_begin(&world->session, &exec, &fault), OK);
}

static int setup(void **state)
{
    static struct world world;
    world = (struct world){.said = buffer_of(MIB(4))};
    begin(&world, AGENT_EXEC_STDIN);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    agent_session_free(&world->session);
    buffer_free(&world->said);
    return 0;
}

/* All that waits to be said, in pieces of at most so many bytes. */
static status hear(struct world *world, size_t piece, struct fault *fault)
{
    size_t at = 0;
    status done = OK;
    while (done == OK && at < world->said.length) {
        size_t most = world->said.length - at, room = agent_session_room(&world->session);
        most = most < piece ? most : piece;
        most = most < room ? most : room;
        assert_true(most > 0);
        done = agent_session_take(&world->session, (struct span){world->said.data + at, most},
                                  fault);
        at += most;
    }
    buffer_clear(&world->said);
    return done;
}

static void must_hear(struct world *world)
{
    struct fault fault;
    if (hear(world, KIB(16), &fault) != OK)
        fail_msg("%s", fault.detail);
}

static void breach(struct world *world, const char *why)
{
    struct fault fault = {""};
    assert_int_equal(hear(world, KIB(16), &fault), BAD_REQUEST);
    if (!strstr(fault.detail, why))
        fail_msg("\"%s\" is not \"%s\"", fault.detail, why);
}

static void say(struct world *world, uint8_t type, uint32_t id, struct span payload)
{
    agent_frame_put(&world->said, type, id, payload);
}

static void say_hello(struct world *world)
{
    uint8_t storage[128];
    struct buffer payload = buffer_over(storage, sizeof storage);
    agent_hello_put(&payload, &(struct agent_hello){.version = AGENT_VERSION, .kernel = "6.1"});
    say(world, AGENT_HELLO, 0, buffer_span(&payload));
}

static void say_started(struct world *world)
{
    say(world, AGENT_STARTED, ID, SPAN("\0\0\0\x07"));
}

static void say_data(struct world *world, enum agent_channel channel, size_t length)
{
    static const uint8_t bytes[AGENT_DATA_MAX];
    agent_put_data(&world->said, ID, channel, (struct span){bytes, length});
}

static void say_exited(struct world *world, enum agent_exit how, uint8_t code)
{
    uint8_t storage[32];
    struct buffer payload = buffer_over(storage, sizeof storage);
    agent_exited_put(&payload, &(struct agent_exited){.how = (uint8_t)how, .code = code});
    say(world, AGENT_EXITED, ID, buffer_span(&payload));
}

static void run(struct world *world)
{
    say_hello(world);
    say_started(world);
    must_hear(world);
    assert_int_equal(world->session.at, AGENT_SESSION_RUNNING);
}

/* Everything that the session has to say, as frames; the credit for a channel. */
static uint32_t drink(struct world *world, enum agent_channel channel)
{
    uint32_t credit = 0;
    struct span waiting = agent_session_waiting(&world->session);
    size_t at = 0;
    while (at < waiting.length) {
        struct agent_frame frame;
        struct agent_piece piece;
        struct fault fault;
        size_t taken;
        assert_int_equal(agent_frame_get(&frame, &taken, (struct span){waiting.data + at,
                                                                       waiting.length - at},
                                         &fault), OK);
        assert_int_equal(frame.id, ID);
        at += taken;
        if (frame.type != AGENT_CREDIT)
            continue;
        assert_int_equal(agent_piece_get(&piece, &frame, &fault), OK);
        credit += piece.channel == channel ? piece.credit : 0;
    }
    agent_session_sent(&world->session, waiting.length);
    return credit;
}

static void an_honest_guest_is_heard_however_its_bytes_are_cut(void **state)
{
    struct world *world = *state;
    struct fault fault;
    for (size_t piece = 1; piece < 64; piece += 7) {
        begin(world, 0);
        say_hello(world);
        say_started(world);
        say_data(world, AGENT_OUT, 5);
        say_data(world, AGENT_ERROR, 3);
        agent_put_end(&world->said, ID, AGENT_ERROR);
        say_data(world, AGENT_OUT, 1);
        agent_put_end(&world->said, ID, AGENT_OUT);
        say_exited(world, AGENT_EXIT_CODE, 3);
        say(world, 0xFF, 9, SPAN("what follows is nobody's matter"));
        assert_int_equal(hear(world, piece, &fault), OK);
        assert_int_equal(world->session.at, AGENT_SESSION_EXITED);
        assert_int_equal(world->session.exited.code, 3);
        assert_string_equal(world->session.hello.kernel, "6.1");
        assert_int_equal(agent_session_output(&world->session, AGENT_OUT).length, 6);
        assert_int_equal(agent_session_output(&world->session, AGENT_ERROR).length, 3);
    }
}

static void a_command_that_cannot_be_started_is_refused_in_plain_words(void **state)
{
    struct world *world = *state;
    say_hello(world);
    agent_put_done(&world->said, ID, NOT_FOUND, "no such program", (struct span){0});
    must_hear(world);
    assert_int_equal(world->session.at, AGENT_SESSION_REFUSED);
    assert_string_equal(world->session.refused.detail, "no such program");
    assert_int_equal(agent_session_input_room(&world->session), 0);
    begin(world, 0);
    say_hello(world);
    agent_put_done(&world->said, ID, OK, "", (struct span){0});
    breach(world, "never began");
    begin(world, 0);
    say_hello(world);
    say(world, AGENT_DONE, ID, SPAN("\0\x08\0\0\0\x04\x1b[2J"));
    breach(world, "plain text");
}

static void what_comes_out_of_turn_is_a_breach(void **state)
{
    struct world *world = *state;
    static const uint8_t types[] = {AGENT_EXEC, AGENT_SIGNAL, AGENT_RESIZE, AGENT_CANCEL,
                                    AGENT_EVENT, AGENT_FILE_READ, AGENT_SHUTDOWN};
    say_started(world);
    breach(world, "before it said who it is");
    begin(world, 0);
    say_hello(world);
    say_hello(world);
    breach(world, "id 0");
    for (size_t i = 0; i < sizeof types; i++) {
        begin(world, 0);
        run(world);
        say(world, types[i], ID, (struct span){0});
        breach(world, "out of turn");
    }
    begin(world, 0);
    run(world);
    say_started(world);
    breach(world, "out of turn");
    begin(world, 0);
    run(world);
    agent_put_done(&world->said, ID, NOT_FOUND, "late", (struct span){0});
    breach(world, "out of turn");
    begin(world, 0);
    say_hello(world);
    say_data(world, AGENT_OUT, 1);
    breach(world, "out of turn");
    begin(world, 0);
    say_hello(world);
    say_exited(world, AGENT_EXIT_CODE, 0);
    breach(world, "out of turn");
    begin(world, 0);
    run(world);
    agent_put_data(&world->said, ID + 1, AGENT_OUT, SPAN("x"));
    breach(world, "nobody chose");
}

static void an_exit_comes_after_both_ends_and_no_byte_after_its_own(void **state)
{
    struct world *world = *state;
    run(world);
    agent_put_end(&world->said, ID, AGENT_OUT);
    say_exited(world, AGENT_EXIT_CODE, 0);
    breach(world, "before the end of the output");
    begin(world, 0);
    run(world);
    agent_put_end(&world->said, ID, AGENT_OUT);
    say_data(world, AGENT_OUT, 1);
    breach(world, "after the end");
    begin(world, 0);
    run(world);
    agent_put_end(&world->said, ID, AGENT_OUT);
    agent_put_end(&world->said, ID, AGENT_OUT);
    breach(world, "an end");
    begin(world, 0);
    run(world);
    agent_put_end(&world->said, ID, AGENT_IN);
    breach(world, "an end");
}

static void a_terminal_has_one_output(void **state)
{
    struct world *world = *state;
    begin(world, AGENT_EXEC_PTY | AGENT_EXEC_STDIN);
    run(world);
    say_data(world, AGENT_OUT, 10);
    agent_put_end(&world->said, ID, AGENT_OUT);
    say_exited(world, AGENT_EXIT_SIGNAL, 9);
    must_hear(world);
    assert_int_equal(world->session.exited.code, 9);
    begin(world, AGENT_EXEC_PTY);
    run(world);
    say_data(world, AGENT_ERROR, 1);
    breach(world, "channel 2");
}

static void output_stays_within_the_credit_given(void **state)
{
    struct world *world = *state;
    run(world);
    (void)drink(world, AGENT_OUT);
    for (uint32_t sent = 0; sent < AGENT_WINDOW; sent += AGENT_DATA_MAX)
        say_data(world, AGENT_OUT, AGENT_DATA_MAX);
    must_hear(world);
    assert_int_equal(agent_session_output(&world->session, AGENT_OUT).length, AGENT_WINDOW);
    assert_int_equal(drink(world, AGENT_OUT), 0); /* nothing is written: nothing is given */
    agent_session_written(&world->session, AGENT_OUT, AGENT_WINDOW / 4 - 1);
    assert_int_equal(drink(world, AGENT_OUT), 0);
    agent_session_written(&world->session, AGENT_OUT, 1);
    assert_int_equal(drink(world, AGENT_OUT), AGENT_WINDOW / 4);
    say_data(world, AGENT_ERROR, AGENT_DATA_MAX); /* a window of its own */
    for (uint32_t sent = 0; sent < AGENT_WINDOW / 4; sent += AGENT_DATA_MAX)
        say_data(world, AGENT_OUT, AGENT_DATA_MAX);
    must_hear(world);
    say_data(world, AGENT_OUT, 1);
    breach(world, "credit is for 0");
}

static void input_stays_within_the_credit_given(void **state)
{
    static const uint8_t bytes[AGENT_DATA_MAX];
    struct world *world = *state;
    uint32_t sent = 0;
    run(world);
    (void)drink(world, AGENT_IN);
    begin(world, AGENT_EXEC_STDIN); /* input does not wait for the command to begin */
    say_hello(world);
    must_hear(world);
    agent_session_input(&world->session, SPAN("four"));
    agent_put_credit(&world->said, ID, AGENT_IN, 4);
    say_started(world);
    must_hear(world);
    (void)drink(world, AGENT_IN);
    for (size_t room; (room = agent_session_input_room(&world->session)) > 0;) {
        agent_session_input(&world->session, (struct span){bytes, room});
        sent += (uint32_t)room;
        (void)drink(world, AGENT_IN);
    }
    assert_int_equal(sent, AGENT_WINDOW);
    agent_put_credit(&world->said, ID, AGENT_IN, 100);
    must_hear(world);
    assert_int_equal(agent_session_input_room(&world->session), 100);
    agent_put_credit(&world->said, ID, AGENT_IN, AGENT_WINDOW - 99);
    breach(world, "beyond what was sent");
    begin(world, AGENT_EXEC_STDIN);
    run(world);
    agent_put_credit(&world->said, ID, AGENT_OUT, 1);
    breach(world, "credit for channel 1");
}

/* The way to a guest that takes nothing is bounded. */
static void a_guest_that_takes_nothing_is_not_remembered_for_ever(void **state)
{
    static const uint8_t bytes[AGENT_DATA_MAX];
    struct world *world = *state;
    run(world);
    while (agent_session_input_room(&world->session)) {
        agent_session_input(&world->session, (struct span){bytes, AGENT_DATA_MAX});
        agent_put_credit(&world->said, ID, AGENT_IN, AGENT_DATA_MAX);
        must_hear(world);
    }
    assert_true(agent_session_waiting(&world->session).length < MIB(1));
    assert_false(world->session.to_guest.failed);
    for (int i = 0; i < 200000; i++)
        agent_session_signal(&world->session, 2);
    assert_true(world->session.to_guest.failed);
    assert_true(agent_session_waiting(&world->session).length <= MIB(1));
}

static void frames_that_are_none_are_breaches(void **state)
{
    struct world *world = *state;
    static const struct span wrong[] = {
        SPAN("\xff\xff\xff\xff"),             /* longer than a frame may be */
        SPAN("\0\0\0\0"),                     /* shorter than its head */
        SPAN("\0\0\0\x05\x77\0\0\0\x01"),     /* of no type */
        SPAN("\0\0\0\x06\x30\0\0\0\x01\x01"), /* data without a byte */
        SPAN("\0\0\0\x07\x30\0\0\0\x01\x03x"), /* on a fourth channel */
        SPAN("\0\0\0\x07\x31\0\0\0\x01\x01x"), /* an end with surplus */
        SPAN("\0\0\0\x0a\x32\0\0\0\x01\0\0\0\0\0"), /* credit of nothing */
        SPAN("\0\0\0\x06\x41\0\0\0\x01\x01"), /* an exit cut short */
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct fault fault;
        begin(world, 0);
        run(world);
        buffer_put(&world->said, wrong[i]);
        assert_int_equal(hear(world, 1, &fault), BAD_REQUEST);
    }
    begin(world, 0);
    say(world, AGENT_HELLO, 0, SPAN("\0\0\0\x02\0\0\0\x03" "6.1\0\0\0\0\0\0\0\0"));
    breach(world, "version 2");
}

static void a_command_that_fits_no_frame_is_refused(void **state)
{
    (void)state;
    static char word[KIB(33)];
    struct agent_session session;
    struct fault fault;
    memset(word, 'x', sizeof word);
    struct agent_exec exec = {.arguments = {{(const uint8_t *)word, sizeof word}},
                              .argument_count = 1};
    assert_int_equal(agent_session_begin(&session, &exec, &fault), TOO_LARGE);
    assert_non_null(strstr(fault.detail, "at most"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_honest_guest_is_heard_however_its_bytes_are_cut),
        TEST(a_command_that_cannot_be_started_is_refused_in_plain_words),
        TEST(what_comes_out_of_turn_is_a_breach),
        TEST(an_exit_comes_after_both_ends_and_no_byte_after_its_own),
        TEST(a_terminal_has_one_output),
        TEST(output_stays_within_the_credit_given),
        TEST(input_stays_within_the_credit_given),
        TEST(a_guest_that_takes_nothing_is_not_remembered_for_ever),
        TEST(frames_that_are_none_are_breaches),
        TEST(a_command_that_fits_no_frame_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
