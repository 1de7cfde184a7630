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
    assert_false(options_speak_tls(&options));
    assert_true(options.tenant_labels);
    assert_int_equal(options.connections_per_address, 1024);
    assert_int_equal(options.proxy_count, 0);
    assert_string_equal(options.domain, "");
    assert_string_equal(options.region, "");
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

static void tls_takes_a_certificate_and_a_key_and_opens_every_address(void **state)
{
    (void)state;
    struct options options;
    struct fault fault;
    assert_int_equal(READ(&options, &fault, "--listen", "0.0.0.0:443", "--tls-cert", "/c",
                          "--tls-key", "/k"), OK);
    assert_true(options_speak_tls(&options));
    assert_string_equal(options.tls_cert, "/c");
    assert_string_equal(options.tls_key, "/k");
    assert_int_equal(READ(&options, &fault, "--tls-cert", "/c"), BAD_FIELD);
    assert_non_null(strstr(fault.detail, "--tls-key: one without"));
    assert_int_equal(READ(&options, &fault, "--tls-key", "/k"), BAD_FIELD);
    assert_int_equal(READ(&options, &fault, "--tls-cert", "", "--tls-key", "/k"), BAD_FIELD);
}

static void proxies_are_named_by_address_or_range(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "", "localhost", "10.0.0.0/", "10.0.0.0/0", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/8/8",
        "10.0.0.1/8", "10.0.0", "10.0.0.0/-1", "10.0.0.0/8 ", "::/0", "2001:db8::1/32", "::1/129",
        "::ffff:10.0.0.1", "[::1]", "10.0.0.1:80", "::/000000000000000008"};
    struct options options;
    struct fault fault;
    assert_int_equal(READ(&options, &fault, "--behind-proxy", "--trusted-proxy", "10.0.0.0/8",
                          "--trusted-proxy", "192.0.2.7", "--trusted-proxy", "2001:db8::/33"), OK);
    assert_int_equal(options.proxy_count, 3);
    assert_int_equal(options.proxies[0].family, 4);
    assert_int_equal(options.proxies[0].prefix_bits, 8);
    assert_memory_equal(options.proxies[1].bytes, "\xC0\0\2\7\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    assert_int_equal(options.proxies[1].prefix_bits, 32);
    assert_int_equal(options.proxies[2].family, 6);
    assert_int_equal(options.proxies[2].prefix_bits, 33);
    assert_int_equal(options.connections_per_address, 0); /* all come from the proxy */
    assert_int_equal(READ(&options, &fault, "--trusted-proxy", "10.0.0.0/8"), BAD_FIELD);
    assert_non_null(strstr(fault.detail, "only with --behind-proxy"));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (READ(&options, &fault, "--behind-proxy", "--trusted-proxy", wrong[i]) != BAD_FIELD)
            fail_msg("taken: \"%s\"", wrong[i]);
}

static void a_domain_and_a_region_are_labels(void **state)
{
    (void)state;
    static const char *const no_domains[] = {
        "", ".", "Example.com", "example.com.", ".example.com", "a..b", "-a.b", "a-.b", "a_b.c",
        "exam ple.com", "example.com:443", "*.example.com"};
    static const char *const no_regions[] = {"", "EU", "eu.west", "-eu", "eu-", "eu west"};
    struct options options;
    struct fault fault;
    char longest[200] = "";
    assert_int_equal(READ(&options, &fault, "--domain", "api.example.com", "--region", "eu-west-1",
                          "--no-tenant-labels"), OK);
    assert_string_equal(options.domain, "api.example.com");
    assert_string_equal(options.region, "eu-west-1");
    assert_false(options.tenant_labels);
    for (size_t i = 0; i < sizeof no_domains / sizeof *no_domains; i++)
        assert_int_equal(READ(&options, &fault, "--domain", no_domains[i]), BAD_FIELD);
    for (size_t i = 0; i < sizeof no_regions / sizeof *no_regions; i++)
        assert_int_equal(READ(&options, &fault, "--region", no_regions[i]), BAD_FIELD);
    for (size_t i = 0; i < 190; i++) /* with a tenant before it a name has at most 253 bytes */
        longest[i] = i % 2 ? '.' : 'a';
    assert_int_equal(READ(&options, &fault, "--domain", longest), BAD_FIELD);
    longest[189] = '\0';
    assert_int_equal(READ(&options, &fault, "--domain", longest), OK);
    longest[63] = 'a';
    assert_int_equal(READ(&options, &fault, "--region", longest), BAD_FIELD);
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
    assert_int_equal(READ(&options, &fault, "--unsafe-no-jail"), NOT_IMPLEMENTED);
    assert_int_equal(READ(&options, &fault, "--wrong"), BAD_FIELD);
    assert_int_equal(READ(&options, &fault, "word"), BAD_FIELD);
}

static void the_front_is_configured_by_the_file_too(void **state)
{
    (void)state;
    struct options options = {.tenant_labels = true, .connections_per_address = 7};
    struct fault fault;
    struct span text = SPAN("{\"tls_cert\":\"/c\",\"tls_key\":\"/k\",\"domain\":\"example.com\","
                            "\"region\":\"eu\",\"trusted_proxies\":[\"10.0.0.0/8\",\"::1\"],"
                            "\"connections_per_address\":0,\"tenant_labels\":false}");
    assert_int_equal(options_from_json(&options, text, &fault), OK);
    assert_string_equal(options.tls_cert, "/c");
    assert_string_equal(options.domain, "example.com");
    assert_string_equal(options.region, "eu");
    assert_int_equal(options.proxy_count, 2);
    assert_int_equal(options.connections_per_address, 0);
    assert_false(options.tenant_labels);
    static const char *const wrong[] = {
        "{\"trusted_proxies\":\"10.0.0.0/8\"}", "{\"trusted_proxies\":[1]}",
        "{\"trusted_proxies\":[\"x\"]}", "{\"domain\":\"EXAMPLE\"}", "{\"region\":\"a b\"}",
        "{\"connections_per_address\":-1}", "{\"tenant_labels\":1}", "{\"tls_cert\":\"\"}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(options_from_json(&options, span_of_text(wrong[i]), &fault), BAD_FIELD);
    assert_int_equal(options.proxy_count, 2);
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
        cmocka_unit_test(tls_takes_a_certificate_and_a_key_and_opens_every_address),
        cmocka_unit_test(proxies_are_named_by_address_or_range),
        cmocka_unit_test(a_domain_and_a_region_are_labels),
        cmocka_unit_test(the_front_is_configured_by_the_file_too),
        cmocka_unit_test(keys_never_lie_inside_the_data),
        cmocka_unit_test(what_is_not_an_address_is_refused_by_name),
        cmocka_unit_test(what_this_version_lacks_is_said_not_ignored),
        cmocka_unit_test(a_configuration_sets_what_it_names_and_nothing_else),
        cmocka_unit_test(a_wrong_configuration_is_refused_by_name_and_changes_nothing),
        cmocka_unit_test(the_line_overrides_the_file_wherever_it_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
