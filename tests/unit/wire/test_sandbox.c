#include "wire/sandbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct fault fault;

static status round_trip(struct sandbox_spec *ret, const struct sandbox_spec *spec)
{
    uint8_t storage[512];
    struct buffer out = buffer_over(storage, sizeof storage);
    sandbox_spec_put(&out, spec);
    assert_false(out.failed);
    struct cursor cursor = cursor_over(buffer_span(&out));
    status result = sandbox_spec_get(ret, &cursor, &fault);
    assert_int_equal(cursor_left(&cursor), result == OK ? 0 : out.length);
    return result;
}

static void a_specification_is_read_back_as_it_was(void **state)
{
    (void)state;
    const struct sandbox_spec spec = {
        .weakest = SANDBOX_MICROVM, .net = SANDBOX_NET_ISOLATED, .console = true,
        .huge_pages = true, .vcpus = 32, .memory_mib = 4096, .disk_mib = 0, .processes = 77,
        .lifetime_s = 86400, .cpu_s = 86401, .disk_bytes = {1, 2, 3}, .disk_ops = {4, 0, 6},
        .net_bytes = {SANDBOX_RATE_MAX, SANDBOX_RATE_MAX, SANDBOX_REFILL_MS_MAX},
        .net_packets = {0, 0, 0}, .image = "base-12"};
    struct sandbox_spec back = {0};
    assert_int_equal(round_trip(&back, &spec), OK);
    assert_int_equal(back.weakest, SANDBOX_MICROVM);
    assert_int_equal(back.net, SANDBOX_NET_ISOLATED);
    assert_true(back.console);
    assert_true(back.huge_pages);
    assert_int_equal(back.vcpus, 32);
    assert_int_equal(back.memory_mib, 4096);
    assert_int_equal(back.disk_mib, 0);
    assert_int_equal(back.processes, 77);
    assert_int_equal(back.lifetime_s, 86400);
    assert_int_equal(back.cpu_s, 86401);
    assert_int_equal(back.disk_bytes.size, 1);
    assert_int_equal(back.disk_bytes.one_time_burst, 2);
    assert_int_equal(back.disk_bytes.refill_ms, 3);
    assert_int_equal(back.disk_ops.size, 4);
    assert_int_equal(back.net_bytes.refill_ms, SANDBOX_REFILL_MS_MAX);
    assert_int_equal(back.net_packets.size, 0);
    assert_string_equal(back.image, "base-12");
}

static void the_default_is_a_good_one(void **state)
{
    (void)state;
    struct sandbox_spec spec = sandbox_spec_default(), back;
    assert_int_equal(round_trip(&back, &spec), OK);
    assert_int_equal(back.weakest, SANDBOX_GVISOR);
    assert_int_equal(back.vcpus, 1);
    assert_int_equal(back.memory_mib, SANDBOX_MEMORY_MIB_DEFAULT);
    assert_int_equal(back.cpu_s, 0);
    assert_false(back.console);
    assert_string_equal(back.image, "base");
}

static void every_truncation_is_found_and_changes_nothing(void **state)
{
    (void)state;
    uint8_t storage[512];
    struct buffer out = buffer_over(storage, sizeof storage);
    struct sandbox_spec spec = sandbox_spec_default(), back = {.vcpus = 9};
    sandbox_spec_put(&out, &spec);
    for (size_t length = 0; length < out.length; length++) {
        struct cursor cursor = cursor_over((struct span){storage, length});
        assert_int_equal(sandbox_spec_get(&back, &cursor, &fault), TRUNCATED);
        assert_int_equal(cursor_left(&cursor), length);
        assert_int_equal(back.vcpus, 9);
    }
}

#define REFUSED(change, beginning)                                           \
    do {                                                                     \
        struct sandbox_spec spec = sandbox_spec_default(), back;             \
        spec.change;                                                         \
        assert_int_equal(round_trip(&back, &spec), BAD_FIELD);               \
        if (!span_starts_with(span_of_text(fault.detail), SPAN(beginning)))  \
            fail_msg(#change ": %s", fault.detail);                          \
    } while (0)

static void a_value_out_of_its_range_is_refused_by_name(void **state)
{
    (void)state;
    REFUSED(weakest = 0, "weakest");
    REFUSED(weakest = SANDBOX_MICROVM + 1, "weakest");
    REFUSED(net = 2, "net");
    REFUSED(vcpus = 0, "vcpus");
    REFUSED(vcpus = SANDBOX_VCPUS_MAX + 1, "vcpus");
    REFUSED(memory_mib = SANDBOX_MEMORY_MIB_MIN - 1, "memory");
    REFUSED(memory_mib = SANDBOX_MEMORY_MIB_MAX + 1, "memory");
    REFUSED(disk_mib = SANDBOX_DISK_MIB_MAX + 1, "disk");
    REFUSED(processes = 0, "processes");
    REFUSED(processes = SANDBOX_PROCESSES_MAX + 1, "processes");
    REFUSED(lifetime_s = 0, "lifetime");
    REFUSED(lifetime_s = SANDBOX_LIFETIME_SECONDS_MAX + 1, "lifetime");
    REFUSED(cpu_s = SANDBOX_LIFETIME_SECONDS_MAX * SANDBOX_VCPUS_MAX + 1, "cpu time");
    REFUSED(disk_bytes.refill_ms = 1, "disk bytes");
    REFUSED(disk_ops.one_time_burst = 1, "disk operations");
    REFUSED(net_bytes.size = 1, "net bytes");
    REFUSED(net_packets = ((struct sandbox_rate){SANDBOX_RATE_MAX + 1, 0, 1}), "net packets");
    REFUSED(net_packets = ((struct sandbox_rate){1, SANDBOX_RATE_MAX + 1, 1}), "net packets");
    REFUSED(net_packets = ((struct sandbox_rate){1, 0, SANDBOX_REFILL_MS_MAX + 1}), "net packets");
    REFUSED(image[0] = '\0', "image");
    REFUSED(image[0] = '/', "image");
    REFUSED(image[0] = '-', "image");
}

static void flags_that_nobody_knows_are_refused(void **state)
{
    (void)state;
    for (unsigned flags = 4; flags <= 0xff; flags++) {
        uint8_t storage[512];
        struct buffer out = buffer_over(storage, sizeof storage);
        struct sandbox_spec spec = sandbox_spec_default(), back;
        sandbox_spec_put(&out, &spec);
        storage[2] = (uint8_t)flags;
        struct cursor cursor = cursor_over(buffer_span(&out));
        assert_int_equal(sandbox_spec_get(&back, &cursor, &fault), BAD_FIELD);
    }
}

static void an_image_is_one_harmless_name(void **state)
{
    (void)state;
    static const char *const good[] = {"base", "b", "0", "python-3-11", "a-",
                                       "abcdefghijklmnopqrstuvwxyz012345"};
    static const char *const bad[] = {"", ".", "..", "-base", "Base", "a/b", "a b", "a_b",
                                      "b\xc3\xa4", "abcdefghijklmnopqrstuvwxyz0123456"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!sandbox_is_image_name(span_of_text(good[i])))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (sandbox_is_image_name(span_of_text(bad[i])))
            fail_msg("not refused: %s", bad[i]);
    assert_false(sandbox_is_image_name(SPAN("a\0b")));
}

static void names_lead_both_ways(void **state)
{
    (void)state;
    enum sandbox_tier tier;
    enum sandbox_end end;
    for (int i = SANDBOX_CONTAINER; i <= SANDBOX_MICROVM; i++) {
        struct span name = span_of_text(sandbox_tier_name((enum sandbox_tier)i));
        assert_int_equal(sandbox_tier_of(&tier, name, "tier", &fault), OK);
        assert_int_equal(tier, i);
    }
    for (int i = SANDBOX_SHUTDOWN; i < SANDBOX_ENDS; i++) {
        struct span name = span_of_text(sandbox_end_name((enum sandbox_end)i));
        assert_int_equal(sandbox_end_of(&end, name, &fault), OK);
        assert_int_equal(end, i);
    }
    assert_string_equal(sandbox_tier_name((enum sandbox_tier)0), "unknown");
    assert_string_equal(sandbox_tier_name((enum sandbox_tier)4), "unknown");
    assert_string_equal(sandbox_end_name((enum sandbox_end)0), "unknown");
    assert_string_equal(sandbox_end_name(SANDBOX_ENDS), "unknown");
    assert_int_equal(sandbox_end_of(&end, SPAN("unknown"), &fault), BAD_FIELD);
    assert_int_equal(sandbox_tier_of(&tier, SPAN("vm"), "--tier", &fault), BAD_FIELD);
    assert_string_equal(fault.detail, "--tier: microvm, gvisor or container");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_specification_is_read_back_as_it_was),
        cmocka_unit_test(the_default_is_a_good_one),
        cmocka_unit_test(every_truncation_is_found_and_changes_nothing),
        cmocka_unit_test(a_value_out_of_its_range_is_refused_by_name),
        cmocka_unit_test(flags_that_nobody_knows_are_refused),
        cmocka_unit_test(an_image_is_one_harmless_name),
        cmocka_unit_test(names_lead_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
