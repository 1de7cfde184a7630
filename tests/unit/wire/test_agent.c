#include "wire/agent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct fault fault;
static uint8_t storage[AGENT_FRAME_MAX + 64];

static struct buffer fresh(void)
{
    return buffer_over(storage, sizeof storage);
}

static status get(struct agent_frame *frame, size_t *taken, const struct buffer *bytes,
                  size_t length)
{
    return agent_frame_get(frame, taken, (struct span){bytes->data, length}, &fault);
}

static void a_frame_comes_back_only_when_it_is_whole(void **state)
{
    (void)state;
    struct agent_frame frame;
    size_t taken = 0;
    struct buffer out = fresh();
    agent_frame_put(&out, AGENT_METRICS, 7, SPAN("abc"));
    assert_int_equal(out.length, AGENT_HEAD_BYTES + 3);
    assert_memory_equal(out.data, "\0\0\0\x08\x1A\0\0\0\x07" "abc", 12);
    for (size_t length = 0; length < out.length; length++)
        assert_int_equal(get(&frame, &taken, &out, length), AGAIN);
    buffer_put_text(&out, "next");
    assert_int_equal(get(&frame, &taken, &out, out.length), OK);
    assert_int_equal(taken, 12);
    assert_int_equal(frame.type, AGENT_METRICS);
    assert_int_equal(frame.id, 7);
    assert_true(span_is(frame.payload, "abc"));
}

static status head(uint32_t length, uint8_t type, uint32_t id)
{
    struct agent_frame frame;
    size_t taken;
    struct buffer out = fresh();
    buffer_put_u32(&out, length);
    buffer_put_u8(&out, type);
    buffer_put_u32(&out, id);
    return get(&frame, &taken, &out, out.length);
}

static void a_head_that_breaks_a_rule_is_refused_before_its_payload(void **state)
{
    (void)state;
    assert_int_equal(head(AGENT_FRAME_MAX, AGENT_DATA, 1), AGAIN);
    assert_int_equal(head(AGENT_FRAME_MAX + 1, AGENT_DATA, 1), BAD_REQUEST);
    assert_int_equal(head(UINT32_MAX, AGENT_DATA, 1), BAD_REQUEST);
    assert_int_equal(head(4, AGENT_DATA, 1), BAD_REQUEST);
    assert_int_equal(head(0, AGENT_DATA, 1), BAD_REQUEST);
    assert_int_equal(head(5, AGENT_DATA, 0), BAD_REQUEST);
    assert_int_equal(head(5, AGENT_HELLO, 1), BAD_REQUEST);
    uint32_t known = 0;
    for (uint32_t type = 0; type < 256; type++)
        known += head(6, (uint8_t)type, type == AGENT_HELLO ? 0 : 1) == AGAIN;
    assert_int_equal(known, 1 + 15 + 3 + 3 + 4);
}

static struct agent_exec some_exec(void)
{
    return (struct agent_exec){
        .arguments = {SPAN("/bin/sh"), SPAN("-c"), SPAN("")}, .argument_count = 3,
        .environment = {SPAN("A=b"), SPAN("C=")}, .environment_count = 2,
        .directory = SPAN("/tmp"), .user = SPAN("1000"), .flags = AGENT_EXEC_PTY,
        .rows = 24, .columns = 80, .timeout_ms = 1500, .processes = 9,
        .memory_bytes = UINT64_C(1) << 40};
}

static struct agent_exec met; /* large */

static status read_exec(const struct agent_exec *exec)
{
    struct buffer out = fresh();
    agent_exec_put(&out, exec);
    assert_false(out.failed);
    return agent_exec_get(&met, buffer_span(&out), &fault);
}

static void an_exec_comes_back_as_it_was(void **state)
{
    (void)state;
    struct agent_exec exec = some_exec();
    assert_int_equal(read_exec(&exec), OK);
    assert_int_equal(met.argument_count, 3);
    assert_true(span_is(met.arguments[0], "/bin/sh"));
    assert_int_equal(met.arguments[2].length, 0);
    assert_int_equal(met.environment_count, 2);
    assert_true(span_is(met.environment[1], "C="));
    assert_true(span_is(met.directory, "/tmp"));
    assert_true(span_is(met.user, "1000"));
    assert_int_equal(met.rows, 24);
    assert_int_equal(met.columns, 80);
    assert_int_equal(met.timeout_ms, 1500);
    assert_int_equal(met.processes, 9);
    assert_int_equal(met.memory_bytes, UINT64_C(1) << 40);
}

static void an_exec_that_is_none_is_refused(void **state)
{
    (void)state;
    struct agent_exec exec = some_exec();
    exec.argument_count = 0;
    assert_int_equal(read_exec(&exec), BAD_FIELD);
    exec = some_exec();
    exec.arguments[0] = SPAN("");
    assert_int_equal(read_exec(&exec), BAD_FIELD);
    exec = some_exec();
    exec.arguments[1] = SPAN("-c\0x");
    assert_int_equal(read_exec(&exec), BAD_FIELD);
    static const char *const names[] = {"", "=", "=x", "x"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        exec = some_exec();
        exec.environment[0] = span_of_text(names[i]);
        assert_int_equal(read_exec(&exec), BAD_FIELD);
    }
    exec = some_exec();
    exec.flags = 4;
    assert_int_equal(read_exec(&exec), BAD_FIELD);
    exec = some_exec();
    exec.user = SPAN("a\0b");
    assert_int_equal(read_exec(&exec), BAD_FIELD);
}

static void an_exec_has_at_most_so_many_arguments(void **state)
{
    (void)state;
    struct agent_exec exec = some_exec();
    for (exec.argument_count = 0; exec.argument_count < AGENT_ARGUMENTS_MAX; exec.argument_count++)
        exec.arguments[exec.argument_count] = SPAN("x");
    assert_int_equal(read_exec(&exec), OK);
    struct buffer out = fresh();
    buffer_put_u16(&out, AGENT_ARGUMENTS_MAX + 1);
    for (int i = 0; i <= AGENT_ARGUMENTS_MAX; i++)
        buffer_put_field(&out, SPAN("x"));
    assert_int_equal(agent_exec_get(&met, buffer_span(&out), &fault), TOO_LARGE);
}

static void an_exec_that_was_cut_or_goes_on_is_refused(void **state)
{
    (void)state;
    struct agent_exec exec = some_exec();
    struct buffer out = fresh();
    agent_exec_put(&out, &exec);
    for (size_t length = 0; length < out.length; length++)
        assert_int_not_equal(agent_exec_get(&met, (struct span){out.data, length}, &fault), OK);
    buffer_put_u8(&out, 0);
    assert_int_equal(agent_exec_get(&met, buffer_span(&out), &fault), BAD_REQUEST);
}

static void an_end_is_told_with_a_true_reason(void **state)
{
    (void)state;
    struct agent_exited exited = {.how = AGENT_EXIT_CODE, .code = 255, .cpu_us = 1, .peak_kib = 2};
    struct agent_exited seen;
    for (uint8_t how = 0; how < 6; how++) {
        struct buffer out = fresh();
        exited.how = how;
        exited.code = 64;
        agent_exited_put(&out, &exited);
        bool known = how >= AGENT_EXIT_CODE && how <= AGENT_EXIT_MEMORY;
        assert_int_equal(agent_exited_get(&seen, buffer_span(&out), &fault),
                         known ? OK : BAD_FIELD);
        if (known)
            assert_memory_equal(&seen, &exited, sizeof seen);
        out.data[1] = 65;
        if (how > AGENT_EXIT_CODE)
            assert_int_equal(agent_exited_get(&seen, buffer_span(&out), &fault), BAD_FIELD);
        buffer_put_u8(&out, 0);
        assert_int_not_equal(agent_exited_get(&seen, buffer_span(&out), &fault), OK);
    }
}

static status read_piece(struct agent_piece *piece, uint8_t type, struct span payload)
{
    struct agent_frame frame = {.type = type, .id = 1, .payload = payload};
    return agent_piece_get(piece, &frame, &fault);
}

static void pieces_of_streams_have_a_channel_and_something_in_them(void **state)
{
    (void)state;
    static uint8_t large[AGENT_DATA_MAX + 2];
    struct agent_piece piece;
    struct agent_frame frame;
    size_t taken;
    struct buffer out = fresh();
    agent_put_data(&out, 3, AGENT_OUT, (struct span){large, AGENT_DATA_MAX});
    assert_int_equal(get(&frame, &taken, &out, out.length), OK);
    assert_int_equal(agent_piece_get(&piece, &frame, &fault), OK);
    assert_int_equal(piece.channel, AGENT_OUT);
    assert_int_equal(piece.bytes.length, AGENT_DATA_MAX);
    out = fresh();
    agent_put_credit(&out, 3, AGENT_IN, 70000);
    assert_int_equal(get(&frame, &taken, &out, out.length), OK);
    assert_int_equal(agent_piece_get(&piece, &frame, &fault), OK);
    assert_int_equal(piece.credit, 70000);
    out = fresh();
    agent_put_end(&out, 3, AGENT_ERROR);
    assert_int_equal(get(&frame, &taken, &out, out.length), OK);
    assert_int_equal(agent_piece_get(&piece, &frame, &fault), OK);
    assert_int_equal(piece.channel, AGENT_ERROR);

    assert_int_equal(read_piece(&piece, AGENT_DATA, SPAN("\1x")), OK);
    assert_int_not_equal(read_piece(&piece, AGENT_DATA, SPAN("\1")), OK);
    assert_int_not_equal(read_piece(&piece, AGENT_DATA, SPAN("\3x")), OK);
    assert_int_not_equal(read_piece(&piece, AGENT_DATA, SPAN("")), OK);
    assert_int_not_equal(read_piece(&piece, AGENT_DATA, SPAN_OF(large)), OK);
    assert_int_not_equal(read_piece(&piece, AGENT_END, SPAN("\1x")), OK);
    assert_int_not_equal(read_piece(&piece, AGENT_END, SPAN("\3")), OK);
    assert_int_not_equal(read_piece(&piece, AGENT_CREDIT, SPAN("\1\0\0\0\0")), OK);
    assert_int_not_equal(read_piece(&piece, AGENT_CREDIT, SPAN("\1\0\0\0")), OK);
    assert_int_not_equal(read_piece(&piece, AGENT_CREDIT, SPAN("\1\0\0\0\1x")), OK);
}

static void a_failure_reaches_a_terminal_as_plain_text_without_a_result(void **state)
{
    (void)state;
    struct agent_frame frame;
    struct agent_done done;
    size_t taken;
    struct buffer out = fresh();
    agent_put_done(&out, 5, NOT_FOUND, "no \x1b[2J\nfile \xff", SPAN("result"));
    assert_int_equal(get(&frame, &taken, &out, out.length), OK);
    assert_int_equal(agent_done_get(&done, frame.payload, &fault), OK);
    assert_int_equal(done.code, NOT_FOUND);
    assert_string_equal(done.detail, "no ?[2J?file ?");
    assert_int_equal(done.result.length, 0);
    out = fresh();
    agent_put_done(&out, 5, OK, "", SPAN("result"));
    assert_int_equal(get(&frame, &taken, &out, out.length), OK);
    assert_int_equal(agent_done_get(&done, frame.payload, &fault), OK);
    assert_true(span_is(done.result, "result"));
    assert_int_not_equal(agent_done_get(&done, SPAN("\0\x08\0\0\0\2\x1b["), &fault), OK);
    assert_int_not_equal(agent_done_get(&done, SPAN("\0\x08\0\0\0\0r"), &fault), OK);
    assert_int_not_equal(agent_done_get(&done, SPAN("\0\x7f\0\0\0\0"), &fault), OK);
    assert_int_not_equal(agent_done_get(&done, SPAN("\0\0\0\0\0"), &fault), OK);
}

static void a_hello_is_of_this_version_and_plain(void **state)
{
    (void)state;
    struct agent_hello hello = {.version = AGENT_VERSION, .boot_us = 5, .kernel = "6.1.0-9"}, seen;
    struct buffer out = fresh();
    agent_hello_put(&out, &hello);
    assert_int_equal(agent_hello_get(&seen, buffer_span(&out), &fault), OK);
    assert_string_equal(seen.kernel, "6.1.0-9");
    assert_int_equal(seen.boot_us, 5);
    out.data[9] = 0x1b;
    assert_int_equal(agent_hello_get(&seen, buffer_span(&out), &fault), BAD_FIELD);
    out.data[3] = AGENT_VERSION + 1;
    assert_int_equal(agent_hello_get(&seen, buffer_span(&out), &fault), BAD_REQUEST);
}

static void entries_names_events_and_metrics_are_judged(void **state)
{
    (void)state;
    struct agent_entry entry = {.kind = AGENT_LINK, .mode = 0777, .uid = 1, .gid = 2, .bytes = 3,
                                .changed_us = -4}, seen;
    struct buffer out = fresh();
    agent_entry_put(&out, &entry);
    struct cursor cursor = cursor_over(buffer_span(&out));
    assert_int_equal(agent_entry_get(&seen, &cursor, &fault), OK);
    assert_int_equal(seen.changed_us, -4);
    assert_int_equal(seen.kind, AGENT_LINK);
    out.data[0] = 5;
    cursor = cursor_over(buffer_span(&out));
    assert_int_equal(agent_entry_get(&seen, &cursor, &fault), BAD_FIELD);
    out.data[0] = 1;
    out.data[3] = 0x10;
    cursor = cursor_over(buffer_span(&out));
    assert_int_equal(agent_entry_get(&seen, &cursor, &fault), BAD_FIELD);

    static const struct span bad[] = {SPAN(""), SPAN("."), SPAN(".."), SPAN("a/b"), SPAN("a\0")};
    struct span name;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        out = fresh();
        buffer_put_field(&out, bad[i]);
        cursor = cursor_over(buffer_span(&out));
        assert_int_equal(agent_name_get(&name, &cursor, &fault), BAD_FIELD);
    }
    struct agent_event event = {.what = AGENT_MOVED_HERE, .path = SPAN("a/b")}, heard;
    out = fresh();
    agent_event_put(&out, &event);
    assert_int_equal(agent_event_get(&heard, buffer_span(&out), &fault), OK);
    assert_true(span_is(heard.path, "a/b"));
    out.data[0] = 7;
    assert_int_equal(agent_event_get(&heard, buffer_span(&out), &fault), BAD_FIELD);
    struct agent_metrics metrics = {1, 2, 3, 4, 5, 6, 7}, told;
    out = fresh();
    agent_metrics_put(&out, &metrics);
    assert_int_equal(agent_metrics_get(&told, buffer_span(&out), &fault), OK);
    assert_memory_equal(&told, &metrics, sizeof told);
    out.length--;
    assert_int_equal(agent_metrics_get(&told, buffer_span(&out), &fault), TRUNCATED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_comes_back_only_when_it_is_whole),
        cmocka_unit_test(a_head_that_breaks_a_rule_is_refused_before_its_payload),
        cmocka_unit_test(an_exec_comes_back_as_it_was),
        cmocka_unit_test(an_exec_that_is_none_is_refused),
        cmocka_unit_test(an_exec_has_at_most_so_many_arguments),
        cmocka_unit_test(an_exec_that_was_cut_or_goes_on_is_refused),
        cmocka_unit_test(an_end_is_told_with_a_true_reason),
        cmocka_unit_test(pieces_of_streams_have_a_channel_and_something_in_them),
        cmocka_unit_test(a_failure_reaches_a_terminal_as_plain_text_without_a_result),
        cmocka_unit_test(a_hello_is_of_this_version_and_plain),
        cmocka_unit_test(entries_names_events_and_metrics_are_judged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
