#include "supervisor/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static status read_line(struct options *ret, struct fault *fault, int count,
                        const char *const *words)
{
    char *argv[16] = {(char *)(uintptr_t)"serve"};
    for (int i = 0; i < count; i++)
        argv[i + 1] = (char *)(uintptr_t)words[i];
    return options_read(ret, count + 1, argv, fault);
}

#define READ(ret, fault, ...)                                                   \
    read_line(ret, fault, (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)), \
              (const char *const[]){__VA_ARGS__})

static void defaults_are_those_of_the_contract(void **state)
{
    (void)state;
    struct options options;
    struct fault fault;
    unsetenv("BULKHEAD_DATA");
    assert_int_equal(read_line(&options, &fault, 0, NULL), OK);
    assert_string_equal(options.data, "./bulkhead-data");
    assert_string_equal(options.keys, "./bulkhead-data.keys");
    assert_string_equal(options.listen.text, "127.0.0.1:7117");
    assert_string_equal(options.ops.text, "127.0.0.1:7118");
    assert_int_equal(options.idle_seconds, 15);
    assert_false(options.behind_proxy);
}

static void the_environment_names_the_data_and_the_line_overrides_it(void **state)
{
    (void)state;
    struct options options;
    struct fault fault;
    setenv("BULKHEAD_DATA", "/srv/one", 1);
    assert_int_equal(read_line(&options, &fault, 0, NULL), OK);
    assert_string_equal(options.data, "/srv/one");
    assert_int_equal(READ(&options, &fault, "--data", "/srv/two/"), OK);
    assert_string_equal(options.data, "/srv/two");
    assert_string_equal(options.keys, "/srv/two.keys");
    unsetenv("BULKHEAD_DATA");
}

static void an_address_beyond_this_machine_needs_a_proxy_in_front(void **state)
{
    (void)state;
    static const char *const beyond[] = {"0.0.0.0:80", "[::]:80", "192.0.2.1:80"};
    static const char *const within[] = {"127.0.0.1:80", "127.9.9.9:80", "[::1]:80"};
    struct options options;
    struct fault fault;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(READ(&options, &fault, "--listen", beyond[i]), BAD_FIELD);
        assert_non_null(strstr(fault.detail, "--behind-proxy"));
        assert_int_equal(READ(&options, &fault, "--behind-proxy", "--listen", beyond[i]), OK);
        assert_int_equal(READ(&options, &fault, "--listen", within[i]), OK);
        assert_int_equal(READ(&options, &fault, "--ops", beyond[i]), BAD_FIELD);
    }
}

static void keys_never_lie_inside_the_data(void **state)
{
    (void)state;
    struct options options;
    struct fault fault;
    assert_int_equal(READ(&options, &fault, "--data", "/srv/d", "--keys", "/srv/d/keys"),
                     BAD_FIELD);
    assert_int_equal(READ(&options, &fault, "--data", "/srv/d", "--keys", "/srv/d"), BAD_FIELD);
    assert_int_equal(READ(&options, &fault, "--data", "/srv/d", "--keys", "/srv/d.keys"), OK);
}

static void what_is_not_an_address_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", ":", "7117", "localhost:7117", "127.0.0.1",
        "127.0.0.1:", "127.0.0.1:70000",
        "127.0.0.1:-1", "1.2.3:80", "[::1:80", "::1]:80", "127.0.0.1:80x"};
    struct options_address address;
    struct fault fault;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (options_address(&address, wrong[i], "--listen", &fault) != BAD_FIELD)
            fail_msg("accepted: %s", wrong[i]);
        assert_non_null(strstr(fault.detail, "--listen"));
    }
}

static void what_this_version_lacks_is_said_not_ignored(void **state)
{
    (void)state;
    struct options options;
    struct fault fault;
    assert_int_equal(READ(&options, &fault, "--tls-cert", "x"), NOT_IMPLEMENTED);
    assert_int_equal(READ(&options, &fault, "--unsafe-no-jail"), NOT_IMPLEMENTED);
    assert_int_equal(READ(&options, &fault, "--wrong"), BAD_FIELD);
    assert_int_equal(READ(&options, &fault, "word"), BAD_FIELD);
}

static void a_configuration_sets_what_it_names_and_nothing_else(void **state)
{
    (void)state;
    struct options options = {.idle_seconds = 15, .gateways = 2};
    struct fault fault;
    struct span text = SPAN("{\"idle_seconds\":3,\"listen\":\"[::1]:9\"}");
    assert_int_equal(options_from_json(&options, text, &fault), OK);
    assert_int_equal(options.idle_seconds, 3);
    assert_int_equal(options.gateways, 2);
    assert_string_equal(options.listen.text, "[::1]:9");
}

static void a_wrong_configuration_is_refused_by_name_and_changes_nothing(void **state)
{
    (void)state;
    static const struct { const char *text, *named; } wrong[] = {
        {"{\"idle_seconds\":0}", "idle_seconds"}, {"{\"idle_seconds\":\"5\"}", "idle_seconds"},
        {"{\"gateways\":65}", "gateways"},        {"{\"gateways\":1.5}", "gateways"},
        {"{\"uid_base\":0}", "uid_base"},         {"{\"unknown\":1}", "unknown"},
        {"{\"listen\":\"nowhere\"}", "listen"},   {"{\"behind_proxy\":1}", "behind_proxy"},
        {"[]", "configuration"},
        {"{\"idle_seconds\":3,\"blank_cells\":0}", "blank_cells"}};
    struct fault fault;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct options options = {.idle_seconds = 15};
        const struct options before = options;
        if (options_from_json(&options, span_of_text(wrong[i].text), &fault) == OK)
            fail_msg("accepted: %s", wrong[i].text);
        if (!strstr(fault.detail, wrong[i].named))
            fail_msg("%s is not named: %s", wrong[i].named, fault.detail);
        assert_memory_equal(&options, &before, sizeof options);
    }
}

static void the_line_overrides_the_file_wherever_it_stands(void **state)
{
    (void)state;
    char path[] = "/tmp/bulkhead-config-XXXXXX";
    struct options options;
    struct fault fault;
    static const char text[] = "{\"ops\":\"127.0.0.1:1\",\"idle_seconds\":7}";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    assert_int_equal(READ(&options, &fault, "--ops", "127.0.0.1:2", "--config", path), OK);
    unlink(path);
    assert_string_equal(options.ops.text, "127.0.0.1:2");
    assert_int_equal(options.idle_seconds, 7);
    assert_int_equal(READ(&options, &fault, "--config", "/nowhere/at/all"), BAD_FIELD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_contract),
        cmocka_unit_test(the_environment_names_the_data_and_the_line_overrides_it),
        cmocka_unit_test(an_address_beyond_this_machine_needs_a_proxy_in_front),
        cmocka_unit_test(keys_never_lie_inside_the_data),
        cmocka_unit_test(what_is_not_an_address_is_refused_by_name),
        cmocka_unit_test(what_this_version_lacks_is_said_not_ignored),
        cmocka_unit_test(a_configuration_sets_what_it_names_and_nothing_else),
        cmocka_unit_test(a_wrong_configuration_is_refused_by_name_and_changes_nothing),
        cmocka_unit_test(the_line_overrides_the_file_wherever_it_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
